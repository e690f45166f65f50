"""Ports: finds a free one for a server, and refuses a taken one before anything is built."""

import contextlib
import errno
import random
import socket

from llmdyno.errors import ServerError, UsageError

_PORTS = range(20_000, 32_000, 4)  # below what Linux gives to clients, from 32768 on


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port such that nobody listens on it or on the two above it.

    It is below the range from which the kernel gives ports to clients. A busy load generator could
    take one of those before our server has started.

    Raises:
        ServerError: no such port is free (class "port-in-use").
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for neighbour in (port, port + 1, port + 2):
                held.enter_context(socket.create_server((host, neighbour)))
            return port
    raise ServerError("port-in-use", f"no free port from {_PORTS[0]} to {_PORTS[-1]} on {host}.")


def require_free(host: str, port: int) -> None:
    """Refuse an address that a server could not listen on, before anything is built for it.

    Raises:
        UsageError: the port is taken or kept for root, or the host is not this machine.
    """
    if not host:
        raise UsageError("--host: is empty; give 127.0.0.1, or 0.0.0.0 for all addresses.")
    try:
        # With SO_REUSEADDR, as servers set it: a port is free although its last connections linger.
        socket.create_server((host, port)).close()
    except OSError as error:
        where = f"--host {host} --port {port}"
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"{where}: another program listens there; name another port."
            ) from error
        if error.errno == errno.EACCES:
            raise UsageError(f"{where}: ports below 1024 are root's; name a higher one.") from error
        raise UsageError(
            f"{where}: that is no IPv4 address of this machine; give 127.0.0.1, or 0.0.0.0 for all"
            " of them."
        ) from error
