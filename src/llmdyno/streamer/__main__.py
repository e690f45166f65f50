"""`python -m llmdyno.streamer` starts a server of known timing (server.py)."""

import argparse
import gc
import json
import resource
import signal
import socket
import sys

from llmdyno import units
from llmdyno.errors import UsageError
from llmdyno.streamer.server import Streamer, Timing


def _arguments() -> tuple[argparse.Namespace, Timing]:
    parser = argparse.ArgumentParser(
        prog="python -m llmdyno.streamer", description="Serve tokens at exactly known times."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; it is printed")
    parser.add_argument("--ttft", default="100ms", help="from a request's arrival to its token")
    parser.add_argument("--ttft-per-user", default="0s", help="more, for each other in flight")
    parser.add_argument("--itl", default="20ms", help="from a token to the next")
    parser.add_argument("--tokens-per-chunk", type=int, default=1)
    parser.add_argument("--role-chunk", action="store_true", help="send one without text at once")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin is closed")
    given = parser.parse_args()
    if given.tokens_per_chunk < 1:
        parser.error(f"--tokens-per-chunk {given.tokens_per_chunk}: must be at least 1.")
    try:
        timing = Timing(
            ttft_s=units.seconds(given.ttft, "--ttft"),
            ttft_per_user_s=units.seconds(given.ttft_per_user, "--ttft-per-user"),
            itl_s=units.seconds(given.itl, "--itl"),
            tokens_per_chunk=given.tokens_per_chunk,
            role_chunk=given.role_chunk,
        )
    except UsageError as error:
        parser.error(str(error))
    return given, timing


def main() -> None:
    """Serve until SIGTERM or SIGINT; print the port as a line of JSON before.

    Raises:
        UsageError: a time in the arguments is not a duration.
    """
    given, timing = _arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with socket.create_server((given.host, given.port), backlog=4096) as listener:
        streamer = Streamer(listener, timing)
        if given.until_eof:
            streamer.stop_with(sys.stdin.fileno())
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        streamer.wake_on(woken)

        def stop(*_: object) -> None:
            streamer.stop = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        gc.disable()  # a collection would delay a write by milliseconds
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        streamer.run()


if __name__ == "__main__":
    main()
