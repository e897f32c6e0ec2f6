using System;
using System.Diagnostics;
using System.Text.RegularExpressions;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Http;

namespace CSharpApi
{
    /// <summary>Outermost middleware: request id, one line a request, and the answer to a fault of ours.</summary>
    public sealed class RequestLog
    {
        private const int ClientClosedRequest = 499; // no constant of the framework before .NET 6
        private const string Header = "X-Request-Id";
        private static readonly Regex ValidId = new Regex(@"\A[A-Za-z0-9._-]{1,128}\z", RegexOptions.Compiled);
        private readonly RequestDelegate next;

        public RequestLog(RequestDelegate next)
        {
            this.next = next;
        }

        public async Task InvokeAsync(HttpContext context)
        {
            var elapsed = Stopwatch.StartNew();
            string given = context.Request.Headers[Header].ToString();
            string requestId = ValidId.IsMatch(given) ? given : Guid.NewGuid().ToString("N");
            string path = context.Request.Path.Value;
            context.Response.Headers[Header] = requestId;
            try
            {
                await next(context);
            }
            catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
            {
                // The client has gone: nobody is left to answer, and nothing is wrong with us.
                context.Response.StatusCode = ClientClosedRequest;
            }
            catch (Exception error)
            {
                JsonLog.Message("error", error.ToString());
                if (context.Response.HasStarted)
                {
                    context.Abort(); // half an answer must not look whole
                }
                else
                {
                    await Answers.ErrorAsync(context, StatusCodes.Status500InternalServerError, "internal error");
                }
            }
            finally
            {
                JsonLog.Request(context.Request.Method, path, context.Response.StatusCode, elapsed.Elapsed, requestId);
            }
        }
    }
}
