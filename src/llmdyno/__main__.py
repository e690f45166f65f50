"""`dyno`, and `python -m llmdyno`: what must hold before anything else is imported."""

import os
import signal
import sys

_INTERRUPTED = 130  # errors.InterruptError has it, too, but is not imported yet


def main() -> None:
    """Run `dyno`; Ctrl-C ends it in one sentence from its first import on.

    As the first process of a container it has to ask for SIGTERM: the kernel passes none on to a
    process 1 that has not, and `docker stop` would wait ten seconds and kill the run.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from llmdyno.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("dyno: interrupted.\n")
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
