using System.Globalization;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace CSharpApi
{
    /// <summary>The endpoints of the contract (../CONTRACT.md).</summary>
    public sealed class Startup
    {
        private const int MaxSlowMs = 10000;
        private Settings settings;

        public void ConfigureServices(IServiceCollection services)
        {
            services.AddRouting();
        }

        public void Configure(IApplicationBuilder app, IHostApplicationLifetime lifetime, Settings settings)
        {
            this.settings = settings;
            lifetime.ApplicationStopping.Register(
                () => JsonLog.Message("info", "stopping: requests in flight finish"));
            lifetime.ApplicationStopped.Register(() => JsonLog.Message("info", "stopped"));
            app.UseMiddleware<RequestLog>();
            app.UseRouting();
            app.UseEndpoints(endpoints =>
            {
                Get(endpoints, "/", Index);
                Get(endpoints, "/healthz", Health);
                Get(endpoints, "/slow", Slow);
                endpoints.MapFallback("{**path}", NotFound);
            });
        }

        /// <summary>Maps GET and HEAD, and answers 405 for every other method.</summary>
        private static void Get(IEndpointRouteBuilder endpoints, string path, RequestDelegate handler)
        {
            endpoints.Map(path, context =>
            {
                // The router takes /Healthz and /healthz/ for the same; the contract does not.
                if (context.Request.Path.Value != path)
                {
                    return NotFound(context);
                }
                string method = context.Request.Method;
                if (HttpMethods.IsGet(method) || HttpMethods.IsHead(method))
                {
                    return handler(context);
                }
                context.Response.Headers["Allow"] = "GET, HEAD";
                return Answers.ErrorAsync(
                    context, StatusCodes.Status405MethodNotAllowed, method + " is not allowed here");
            });
        }

        private static Task NotFound(HttpContext context)
        {
            return Answers.ErrorAsync(
                context, StatusCodes.Status404NotFound, "nothing at " + context.Request.Path.Value);
        }

        private Task Index(HttpContext context)
        {
            return Answers.ObjectAsync(context, StatusCodes.Status200OK, json =>
            {
                json.WriteString("service", "csharp-api");
                json.WriteString("language", "csharp");
                json.WriteString("release", settings.Release);
            });
        }

        private Task Health(HttpContext context)
        {
            return Answers.ObjectAsync(
                context, StatusCodes.Status200OK, json => json.WriteString("status", "ok"));
        }

        private async Task Slow(HttpContext context)
        {
            string text = context.Request.Query["ms"].ToString();
            if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int ms) || ms > MaxSlowMs)
            {
                await Answers.ErrorAsync(
                    context,
                    StatusCodes.Status400BadRequest,
                    $"expected ms to be a whole number from 0 to {MaxSlowMs}, got: \"{text}\"");
                return;
            }
            await Task.Delay(ms, context.RequestAborted);
            await Answers.ObjectAsync(context, StatusCodes.Status200OK, json => json.WriteNumber("slept_ms", ms));
        }
    }
}
