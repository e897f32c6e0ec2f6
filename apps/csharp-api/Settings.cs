using System;
using System.Globalization;
using System.Linq;
using System.Net;
using System.Net.Sockets;

namespace CSharpApi
{
    /// <summary>What the environment decides.</summary>
    public sealed class Settings
    {
        private Settings(IPAddress address, int port, string release, TimeSpan shutdownTimeout)
        {
            Address = address;
            Port = port;
            Release = release;
            ShutdownTimeout = shutdownTimeout;
        }

        public IPAddress Address { get; }

        public int Port { get; }

        public string Release { get; }

        /// <summary>How long requests in flight may take after SIGTERM.</summary>
        public TimeSpan ShutdownTimeout { get; }

        public string Url => "http://" + new IPEndPoint(Address, Port);

        /// <summary>Reads the variables through <paramref name="read"/>; an empty one counts as absent.</summary>
        /// <exception cref="FormatException">A variable cannot be used; the message names it.</exception>
        public static Settings FromEnvironment(Func<string, string> read)
        {
            string release = read("FAIRWAY_RELEASE");
            return new Settings(
                AddressFrom(read("HOST")),
                NumberFrom(read, "PORT", 8004, 1, 65535),
                string.IsNullOrEmpty(release) ? "dev" : release,
                TimeSpan.FromSeconds(NumberFrom(read, "SHUTDOWN_TIMEOUT", 8, 1, 300)));
        }

        private static IPAddress AddressFrom(string host)
        {
            if (string.IsNullOrEmpty(host))
            {
                return IPAddress.Loopback;
            }
            if (IPAddress.TryParse(host, out IPAddress address))
            {
                return address;
            }
            try
            {
                return Dns.GetHostAddresses(host).First();
            }
            catch (Exception error) when (error is SocketException || error is ArgumentException)
            {
                throw new FormatException($"expected HOST to be an address or a name that resolves, got: \"{host}\"");
            }
        }

        private static int NumberFrom(Func<string, string> read, string name, int initial, int low, int high)
        {
            string text = read(name);
            if (string.IsNullOrEmpty(text))
            {
                return initial;
            }
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value)
                && value >= low && value <= high)
            {
                return value;
            }
            throw new FormatException(
                $"expected {name} to be a whole number from {low} to {high}, got: \"{text}\"");
        }
    }
}
