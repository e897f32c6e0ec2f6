"""The door beside NGINX, HAProxy, Go's httputil.ReverseProxy and Caddy, on one core, in one run."""
