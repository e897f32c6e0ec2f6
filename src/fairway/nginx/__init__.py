"""From the registry to nginx.conf."""
