"""TLS contexts: which certificates a connection trusts and shows, and which protocol it offers."""

import ssl
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=4)
def tls_context(
    ca_cert: str | None,
    insecure: bool,
    rpc: bool,
    client_cert: str | None = None,
    client_key: str | None = None,
) -> ssl.SSLContext:
    """Return the context of a connection; equal arguments share one, as reading a store is slow.

    Args:
        ca_cert: a PEM file of trusted certificates, instead of the system's store.
        insecure: trust any certificate.
        rpc: offer HTTP/2, which gRPC needs, instead of HTTP/1.1.
        client_cert: a PEM file of the certificate by which the server knows us.
        client_key: a PEM file of its key, not encrypted; None: the key is in the same file.

    Raises:
        OSError: the file cannot be read; SSLError, a subclass: it is no PEM file.
    """
    context = ssl.create_default_context(cafile=ca_cert)
    context.set_alpn_protocols(["h2" if rpc else "http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client_cert:
        for file in (client_cert, client_key):
            if file:
                Path(file).open("rb").close()  # OpenSSL does not say which one is not there
        # An empty password makes a fault of an encrypted key; without one OpenSSL asks for it.
        context.load_cert_chain(client_cert, client_key, password="")
    return context
