"""A group chat with asyncio's streams, as in its documentation; with a second argument, on uvloop. Relays whole frames."""

import asyncio
import sys

writers: set[asyncio.StreamWriter] = set()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writers.add(writer)
    try:
        while True:
            header = await reader.readexactly(4)
            frame = header + await reader.readexactly(int.from_bytes(header, "big"))
            for other in writers:
                if other is not writer:
                    other.write(frame)
            await asyncio.sleep(0)  # else one who floods is the only one served
    except (OSError, asyncio.IncompleteReadError):
        writers.discard(writer)
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


if sys.argv[2:] == ["uvloop"]:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
