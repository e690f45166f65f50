"""Opens a connection in the target's protocol, or says which class of fault prevented it.

The load (load/sender.py) and the prober (bench/prober.py) connect here and nowhere else, so both
report a fault of DNS, TCP, TLS or a proxy by the same error class of faults.py.
"""

import asyncio
import errno
import socket
import ssl

from llmdyno.errors import reason
from llmdyno.wire.exchange import Exchange, Meter
from llmdyno.wire.http1 import Connection
from llmdyno.wire.poller import Poller
from llmdyno.wire.sockets import Addresses
from llmdyno.wire.target import Target, own_context
from llmdyno.wire.tunnel import ProxyError, open_tunnel

CONNECT_TIMEOUT_S = 30.0
# connect() fails with these when this machine can hold no more connections.
_OUR_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})
# OpenSSL's reasons when the answer to its greeting is text, as its versions put it.
_PLAIN_ANSWERS = (
    *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"),
    *("RECORD_OVERFLOW", "HTTPS_PROXY_REQUEST", "RECORD_LAYER_FAILURE"),
)


class ConnectError(Exception):
    """A connection could not be made; `kind` is the record's error class."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def as_sent(target: Target, path: str, body: bytes) -> bytes:
    """Return the bytes of one request, ready for `Exchange.send`.

    Args:
        target: the server; `rpc` makes the request a gRPC call, else it is a POST.
        path: of the resource, or of the gRPC method, without the target's prefix.
        body: JSON, or the framed message of a gRPC call.
    """
    if target.rpc:
        from llmdyno.wire import grpc  # imports hpack, which HTTP/1 does without

        return grpc.call(target, path, body)
    return target.head(path, len(body)) + body


async def connect(
    target: Target,
    meter: Meter,
    timeout_s: float = CONNECT_TIMEOUT_S,
    poller: Poller | None = None,
    addresses: Addresses | None = None,
) -> Exchange:
    """Open a connection and wait until a request can be sent on it.

    Args:
        target: the server, and the proxy on the way to it.
        meter: counts the reads of the connection.
        timeout_s: for DNS, TCP, the proxy and TLS together.
        poller: reads the connection if it is plain TCP; None: the event loop reads it.
        addresses: where the hosts are; None: they are looked up.

    Raises:
        ConnectError: it could not be opened; `kind` is the error class of faults.py.
    """
    exchange = _exchange(target, meter)
    via = f"the proxy {target.proxy[0]}:{target.proxy[1]}" if target.proxy else target.authority
    try:
        async with asyncio.timeout(timeout_s):
            await _open(exchange, target, poller, addresses or Addresses())
    except TimeoutError as error:
        raise ConnectError("connect-timeout", f"no connection in {timeout_s:g} s") from error
    except ProxyError as error:
        raise ConnectError("proxy", str(error)) from error
    except socket.gaierror as error:
        host = target.proxy[0] if target.proxy else target.host
        raise ConnectError("dns", f"{host}: {error.strerror}") from error
    except ssl.SSLCertVerificationError as error:
        raise ConnectError("tls-certificate", _untrusted(error)) from error
    except ssl.SSLError as error:
        raise ConnectError("tls", _no_tls(error, target)) from error
    except OSError as error:
        said = f"{via}: {reason(error)}"
        if target.tls and isinstance(error, ConnectionResetError | ConnectionAbortedError):
            said += f"; if the server speaks no TLS, give its URL with {_without_tls(target)}"
        raise ConnectError(_kind(error), said) from error
    return exchange


def _exchange(target: Target, meter: Meter) -> Exchange:
    if target.rpc:
        from llmdyno.wire.grpc import GrpcConnection  # as in as_sent

        return GrpcConnection(meter)
    return Connection(meter)


_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = {62, 64}  # a host's, an IP address's


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    """Return why a certificate is not trusted, and the flags that help."""
    said = error.verify_message or str(error)
    # Codes are OpenSSL's X509_V_ERR_…; of these no authority would help.
    if error.verify_code in _OTHER_NAME:
        return f"{said.rstrip('.')}; give a host that it names in --url, or write --insecure"
    if error.verify_code == _EXPIRED:
        return f"{said}; the server needs a new one, or write --insecure to measure all the same"
    if error.verify_code == _NOT_YET_VALID:
        return f"{said}; set the clock of this machine or of its issuer right, or write --insecure"
    return f"{said}; trust its authority with --ca-cert FILE, or any certificate with --insecure"


def _no_tls(error: ssl.SSLError, target: Target) -> str:
    """Return why no TLS connection came about, and what may help."""
    reason = (error.reason or str(error)).upper().replace(" ", "_")
    plain = _without_tls(target)
    if any(words in reason for words in _PLAIN_ANSWERS):
        return f"the server answered without TLS: give its URL with {plain}"
    if "EOF" in reason:
        return (
            f"the server hung up in the TLS handshake; if it speaks no TLS, give its URL with"
            f" {plain}; if it wants a certificate of ours, --client-cert FILE"
        )
    if "CERTIFICATE" in reason:  # an alert of the server's
        return f"the server does not take our certificate, see --client-cert: {error}"
    return f"{error}; --ca-cert and --insecure say whom to trust"


def _without_tls(target: Target) -> str:
    return "grpc://" if target.rpc else "http://"


async def _open(
    exchange: Exchange, target: Target, poller: Poller | None, addresses: Addresses
) -> None:
    loop = asyncio.get_running_loop()
    context = own_context(target) if target.tls else None
    host, port = target.proxy or (target.host, target.port)
    # A proxy forwards plain HTTP itself; TLS and gRPC need a tunnel through it.
    if target.proxy and (context or target.rpc):
        channel = await open_tunnel(target.proxy, target.authority, target.proxy_headers, addresses)
    elif poller is not None and context is None:
        exchange.connection_made(await poller.connect(host, port, exchange))
        return
    else:
        channel = await addresses.connect(host, port)
    name = target.host if context else None
    await loop.create_connection(lambda: exchange, sock=channel, ssl=context, server_hostname=name)


def _kind(error: OSError) -> str:
    """Return the error class of a connection that could not be made."""
    if error.errno in _OUR_LIMITS:
        return "client-limit"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError):
        return "reset"
    return "connect-timeout" if error.errno == errno.ETIMEDOUT else "unreachable"
