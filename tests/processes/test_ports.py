import socket

import pytest

from llmdyno.errors import UsageError
from llmdyno.processes import ports


def test_a_free_port_has_free_neighbours_and_is_none_of_the_kernels() -> None:
    port = ports.free_port()

    assert 20_000 <= port < 32_000
    for neighbour in (port, port + 1, port + 2):
        socket.create_server(("127.0.0.1", neighbour)).close()


def test_a_taken_port_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: another program listens there"):
            ports.require_free("127.0.0.1", port)
    ports.require_free("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "words"), [("", "--host: is empty"), ("192.0.2.1", "no IPv4 address of this machine")]
)
def test_a_host_that_is_not_ours_is_refused(host: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ports.require_free(host, ports.free_port())
