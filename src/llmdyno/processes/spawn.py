"""Start a command on a leash: our end of leash.py."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from llmdyno.processes import leash


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdout: int,
    afterwards: Sequence[str] = (),
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the leash, which starts the command; return it and our end of its line.

    Args:
        command: the program and its arguments.
        environment: what is set beside this process's own variables.
        stdout: where both of its outputs go: a descriptor, or subprocess.PIPE.
        afterwards: what the leash runs once all else has ended.
    """
    said = (f"{leash.AFTERWARDS}{' '.join(afterwards)}",) if afterwards else ()
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            line = str(theirs.fileno())
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, line, *said, *command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for dyno, who then asks the leash
            )
    except BaseException:
        ours.close()
        raise
    return process, ours
