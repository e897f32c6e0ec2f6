using System;
using System.Buffers;
using System.Text.Json;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Http;

namespace CSharpApi
{
    /// <summary>Answers in the contract's form.</summary>
    public static class Answers
    {
        /// <summary>Sends a JSON object; <paramref name="fields"/> writes what is in it.</summary>
        public static async Task ObjectAsync(HttpContext context, int status, Action<Utf8JsonWriter> fields)
        {
            var body = new ArrayBufferWriter<byte>();
            using (var json = new Utf8JsonWriter(body))
            {
                json.WriteStartObject();
                fields(json);
                json.WriteEndObject();
            }
            context.Response.StatusCode = status;
            context.Response.ContentType = "application/json";
            context.Response.ContentLength = body.WrittenCount;
            if (!HttpMethods.IsHead(context.Request.Method))
            {
                await context.Response.Body.WriteAsync(body.WrittenMemory, context.RequestAborted);
            }
        }

        /// <summary>Sends <c>{"error": sentence}</c>.</summary>
        public static Task ErrorAsync(HttpContext context, int status, string sentence)
        {
            return ObjectAsync(context, status, json => json.WriteString("error", sentence));
        }
    }
}
