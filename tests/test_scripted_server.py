"""The scripted server that ships with the contracts."""

import asyncio
from typing import Any

from llmdyno.testing.scripted_server import Client, scripted


def test_a_test_that_ends_before_its_script_ends_quietly() -> None:
    """Python 3.11 told the event loop of a script's cancellation as of an error."""
    told: list[dict[str, Any]] = []
    began = asyncio.Event()

    async def waits_for_ever(client: Client) -> None:
        began.set()
        await client.request()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with scripted(waits_for_ever) as url:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
            await began.wait()
        writer.close()

    asyncio.run(main())

    assert told == []
