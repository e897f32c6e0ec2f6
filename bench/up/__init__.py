"""How long `fairway up` takes beside a shell script that starts the same commands, and what it costs when idle."""
