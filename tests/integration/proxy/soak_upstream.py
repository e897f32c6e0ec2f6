"""An upstream whose every answer carries its request's nonce; run as a process, so that it can be killed."""

from __future__ import annotations

import asyncio
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            start, *lines = head.split("\r\n")
            fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines if line)}
            path, nonce = start.split(" ")[1], fields["x-nonce"].encode()
            body = b""
            if "content-length" in fields:
                body = await reader.readexactly(int(fields["content-length"]))
            elif fields.get("transfer-encoding") == "chunked":
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readexactly(2)
            if path == "/chunked":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(5):
                    writer.write(b"%x\r\n%b\r\n" % (len(nonce), nonce))
                    await asyncio.sleep(0.001)
                writer.write(b"0\r\n\r\n")
            elif path == "/close":
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + nonce * 3)
                await writer.drain()
                return
            elif path == "/large":
                whole = nonce * 4000
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(whole), whole))
            elif path == "/socket":
                writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n" + nonce)
                while data := await reader.read(4096):
                    writer.write(data)
                return
            elif path == "/poison":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%bPOISON" % (len(nonce), nonce))
            else:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(nonce) + len(body), nonce + body)
                )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
