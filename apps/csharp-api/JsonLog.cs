using System;
using System.Globalization;
using System.IO;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace CSharpApi
{
    /// <summary>Writes one JSON object a line to stdout. Safe for concurrent use: a line is one write.</summary>
    public static class JsonLog
    {
        private static readonly object Gate = new object();
        private static readonly Stream Output = Console.OpenStandardOutput();
        private static readonly JsonWriterOptions Options = new JsonWriterOptions
        {
            // The log is no HTML page: quotes and letters stay readable.
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        };

        /// <summary>Writes a line that belongs to no request.</summary>
        public static void Message(string level, string text)
        {
            Write(level, json => json.WriteString("message", text));
        }

        /// <summary>Writes the line of a request.</summary>
        public static void Request(string method, string path, int status, TimeSpan duration, string requestId)
        {
            string level = status >= 500 ? "error" : status >= 400 ? "warning" : "info";
            Write(level, json =>
            {
                json.WriteString("method", method);
                json.WriteString("path", path);
                json.WriteNumber("status", status);
                json.WriteNumber("duration_ms", Math.Round(duration.TotalMilliseconds, 3));
                json.WriteString("request_id", requestId);
            });
        }

        private static void Write(string level, Action<Utf8JsonWriter> fields)
        {
            using (var line = new MemoryStream(256))
            {
                using (var json = new Utf8JsonWriter(line, Options))
                {
                    json.WriteStartObject();
                    json.WriteString(
                        "time",
                        DateTime.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture));
                    json.WriteString("level", level);
                    fields(json);
                    json.WriteEndObject();
                }
                line.WriteByte((byte)'\n');
                lock (Gate)
                {
                    Output.Write(line.GetBuffer(), 0, (int)line.Length);
                    Output.Flush();
                }
            }
        }
    }
}
