"""A crowd that guesses passwords over IMAPS without a pause, in a process of its own: it is killed in the midst of it.

``python -m tests.support.guessers PORT CA SOURCES CONNECTIONS GUESSES NAME``: NAME with ``{}`` is another login for
each guess. Each source is an address of the loopback network, from 127.0.1.1 on.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Sequence
from contextlib import suppress


async def guess(port: int, context: ssl.SSLContext, source: str, names: Sequence[str]) -> None:
    """One connection, for as long as it is let."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost", local_addr=(source, 0)
        )
        await reader.readline()
        for number, name in enumerate(names):
            writer.write(f'g{number} LOGIN "{name}" "guess {source} {number}"\r\n'.encode())
            while not (line := await reader.readline()).startswith(b"g%d" % number):
                if not line:
                    return


async def main(arguments: Sequence[str]) -> None:
    """All connections at once."""
    port, sources, connections, guesses = (int(arguments[place]) for place in (0, 2, 3, 4))
    context, name, each = (
        ssl.create_default_context(cafile=arguments[1]),
        arguments[5],
        guesses // sources // connections,
    )
    async with asyncio.TaskGroup() as group:
        for number in range(sources * connections):
            names = [name.format(number * each + one) for one in range(max(1, each))]
            group.create_task(guess(port, context, f"127.0.1.{number % sources + 1}", names))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
