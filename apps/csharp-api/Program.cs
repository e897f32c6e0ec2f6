using System;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace CSharpApi
{
    /// <summary>Starts the server and stops it as the contract (../CONTRACT.md) says.</summary>
    public static class Program
    {
        private const int Ok = 0;
        private const int Failed = 1;
        private const int Usage = 2;

        public static async Task<int> Main(string[] args)
        {
            Settings settings;
            try
            {
                settings = Settings.FromEnvironment(Environment.GetEnvironmentVariable);
            }
            catch (FormatException error)
            {
                Console.Error.WriteLine("csharp-api: " + error.Message);
                return Usage;
            }
            try
            {
                using (IHost host = Build(args, settings))
                {
                    await host.StartAsync();
                    JsonLog.Message("info", "listening on " + settings.Url);
                    // ConsoleLifetime turns SIGTERM and SIGINT into a shutdown that Kestrel lets requests finish in.
                    await host.WaitForShutdownAsync();
                }
            }
            catch (System.IO.IOException error)
            {
                Console.Error.WriteLine("csharp-api: " + error.Message);
                return Failed;
            }
            return Ok;
        }

        private static IHost Build(string[] args, Settings settings)
        {
            return Host.CreateDefaultBuilder(args)
                // The framework's own console lines are not JSON; every request has its line from RequestLog.
                .ConfigureLogging(logging => logging.ClearProviders())
                .ConfigureServices(services =>
                {
                    services.AddSingleton(settings);
                    services.Configure<HostOptions>(options => options.ShutdownTimeout = settings.ShutdownTimeout);
                })
                .ConfigureWebHostDefaults(web => web
                    .UseStartup<Startup>()
                    .ConfigureKestrel(kestrel =>
                    {
                        kestrel.AddServerHeader = false;
                        kestrel.Limits.MaxRequestBodySize = 64 * 1024;
                        kestrel.Listen(settings.Address, settings.Port);
                    }))
                .Build();
        }
    }
}
