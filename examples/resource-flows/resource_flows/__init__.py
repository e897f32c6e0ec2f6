"""Industrial symbiosis in small: what one site gives off, another may need."""
