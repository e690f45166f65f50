"""TLS contexts: which certificates a connection trusts, and which protocol it offers (ALPN)."""

import ssl
from functools import lru_cache


@lru_cache(maxsize=4)
def tls_context(ca_cert: str | None, insecure: bool, rpc: bool) -> ssl.SSLContext:
    """Return the context of a connection; equal arguments share one, as reading a store is slow.

    Args:
        ca_cert: a PEM file of trusted certificates, instead of the system's store.
        insecure: trust any certificate.
        rpc: offer HTTP/2, which gRPC needs, instead of HTTP/1.1.

    Raises:
        OSError: the file cannot be read; SSLError, a subclass: it is no PEM file.
    """
    context = ssl.create_default_context(cafile=ca_cert)
    context.set_alpn_protocols(["h2" if rpc else "http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
