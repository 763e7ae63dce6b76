"""echo.py HOST PORT BYTES: sends bytes, half-closes, and says whether they all come back."""

import asyncio
import os
import sys


async def main(host, port, length):
    try:
        reader, writer = await asyncio.open_connection(host, port)
        sent = os.urandom(length)

        async def send():
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read(-1))
        print("equal" if received == sent else "different", writer.get_extra_info("peername")[0])
    except ConnectionError as error:
        print("refused", error)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
