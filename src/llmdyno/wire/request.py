"""One GET outside any measurement, with a time limit."""

import asyncio

from llmdyno.wire.http1 import Connection, Response, Target

TIMEOUT_S = 2.0


async def get(connection: Connection, target: Target, path: str) -> Response:
    """Ask for a page on a connection of its own; the answer may be an error."""
    request = target.head(path, 0).replace(b"POST ", b"GET ", 1)
    done = connection.send(request)
    timer = asyncio.get_running_loop().call_later(
        TIMEOUT_S, connection.give_up, "timeout", f"no answer in {TIMEOUT_S:g} s"
    )
    try:
        return await done
    except asyncio.CancelledError:  # the answer under way is nobody's
        connection.close()
        raise
    finally:
        timer.cancel()
