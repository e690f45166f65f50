"""Whom a TLS connection trusts."""

import ssl
from functools import lru_cache


@lru_cache(maxsize=4)
def tls_context(ca_cert: str | None, insecure: bool, rpc: bool) -> ssl.SSLContext:
    """Return the context of a connection. It is cached: to read the system's store is slow.

    Args:
        ca_cert: a PEM file of whom to trust, instead of the system's store.
        insecure: trust anybody.
        rpc: speak HTTP/2, as gRPC needs, and not HTTP/1.1.

    Raises:
        OSError: the file cannot be read; SSLError, which is one: it is no PEM file.
    """
    context = ssl.create_default_context(cafile=ca_cert)
    context.set_alpn_protocols(["h2" if rpc else "http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
