"""The target: a URL and its options, checked once, and the head of each request to it.

Everything that sends to the server under test gets a Target, so a wrong URL, key, certificate or
proxy is refused before anything starts.
"""

import ssl
from collections.abc import Iterator, Sequence
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from llmdyno.errors import UsageError
from llmdyno.wire.tls import tls_context

# Characters that stay as they are in a path (RFC 3986); a percent sign counts as an escape.
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
_BEARER = "Bearer "
_REDACTED = "[API key]"
_TELLING_CHARACTERS = 4  # the shortest beginning of a key that is redacted
# Scheme of a URL → (with TLS, gRPC, the port if it names none).
_SCHEMES = {
    "http": (False, False, 80),
    "https": (True, False, 443),
    "grpc": (False, True, 8001),  # Triton's
    "grpcs": (True, True, 443),
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. `headers` may hold a secret: it is never written anywhere."""

    host: str
    port: int
    tls: bool
    prefix: str  # of the URL's path, without a slash at the end
    headers: tuple[tuple[str, str], ...] = ()
    ca_cert: str | None = None  # PEM file of trusted certificates, instead of the system's store
    insecure: bool = False  # trust any certificate
    proxy: tuple[str, int] | None = None  # host and port
    rpc: bool = False  # it speaks gRPC, not HTTP/1.1: see grpc.py

    def head(self, path: str, length: int) -> bytes:
        """Return the request line and headers of a POST with a JSON body of `length` bytes.

        Args:
            path: without the target's prefix.
            length: of the body in bytes.
        """
        # A proxy that forwards plain HTTP needs the whole URL.
        origin = f"http://{self.authority}" if self.proxy and not self.tls else ""
        lines = [
            f"POST {origin}{self.prefix}{path} HTTP/1.1",
            f"Host: {self.authority}",
            "Content-Type: application/json",
            "Accept: text/event-stream, application/json",
            "Accept-Encoding: identity",
            "User-Agent: llmdyno",
            f"Content-Length: {length}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def redact(self, text: str) -> str:
        """Return a server's text with the API key blanked out.

        The beginning of a key at the end of the text is blanked out too, because texts are cut
        short before they are redacted.
        """
        return "".join(self.redact_parts([text]))

    def redact_parts(self, parts: Sequence[str]) -> list[str]:
        """Redact a text that came in parts; the key may be spread over several of them."""
        text = "".join(parts)
        secrets = [value.removeprefix(_BEARER) for _, value in self.headers]
        hidden = [place for secret in secrets for place in _places(text, secret)]
        if not hidden:
            return list(parts)
        found = []
        start = 0
        for part in parts:
            end = start + len(part)
            kept = ""
            at = start
            for low, high in sorted(hidden):
                kept += text[at : max(at, min(low, end))]
                kept += _REDACTED if start <= low < end else ""
                at = min(end, max(at, high))
            found.append(kept + text[at:end])
            start = end
        return found

    @property
    def authority(self) -> str:
        """host:port, as in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _places(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each secret, and of the beginning of one at the end of the text.

    Texts are cut short before they are redacted, maybe in the middle of the key.
    """
    end = 0
    while (start := text.find(secret, end)) >= 0:
        end = start + len(secret)
        yield start, end
    for length in range(len(secret) - 1, _TELLING_CHARACTERS - 1, -1):
        if text.endswith(secret[:length], end):
            yield len(text) - length, len(text)
            return


def parse_url(
    url: str,
    api_key: str | None = None,
    *,
    ca_cert: str | None = None,
    insecure: bool = False,
    proxy: str | None = None,
) -> Target:
    """Return the target of a base URL and its options.

    Args:
        url: http://, https://, grpc:// or grpcs://, with a host.
        api_key: sent as a bearer token; None: no such header.
        ca_cert: a PEM file of trusted certificates, instead of the system's store.
        insecure: trust any certificate.
        proxy: http://host:port.

    Raises:
        UsageError: the URL or the proxy is none of these, the certificates cannot be read, the key
            cannot be a header, or an option does not fit the URL's scheme.
    """
    parts = _split("--url", url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise UsageError(f"--url {url}: write http://host:port, https://host or grpc://host:port.")
    if parts.port == 0:
        raise UsageError(f"--url {url}: nobody listens on port 0.")
    tls, rpc, port = _SCHEMES[parts.scheme]
    if (ca_cert or insecure) and not tls:
        flag = "--ca-cert" if ca_cert else "--insecure"
        raise UsageError(f"{flag}: only for an https:// URL, or grpcs://, not for {url}.")
    prefix = parts.path.rstrip("/")
    if rpc and prefix:
        raise UsageError(f"--url {url}: a gRPC address ends with its port, without {prefix}.")
    target = Target(
        host=parts.hostname,
        port=parts.port or port,
        tls=tls,
        rpc=rpc,
        prefix=quote(prefix, safe=_PATH_CHARACTERS),
        headers=_authorization(api_key),
        ca_cert=ca_cert,
        insecure=insecure,
        proxy=_parse_proxy(proxy) if proxy else None,
    )
    if ca_cert:
        try:
            tls_context(ca_cert, insecure, rpc)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--ca-cert {ca_cert}: is no PEM file of certificates: {error}."
            ) from error
    return target


def _authorization(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Return the header with the key; a line end after the key, as files have, is left out."""
    key = (api_key or "").strip()
    if not key.isprintable() or " " in key:
        raise UsageError("--api-key-env: the variable holds a blank or a line end within the key.")
    return (("Authorization", _BEARER + key),) if key else ()


def _parse_proxy(proxy: str) -> tuple[str, int]:
    parts = _split("--proxy", proxy)
    if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path.strip("/"):
        raise UsageError(f"--proxy {proxy}: write http://host:port.")
    return parts.hostname, parts.port


def _split(flag: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here because it may be no number
        (parts.hostname or "").encode("idna")  # as getaddrinfo will
    except UnicodeError as error:
        raise UsageError(f"{flag} {url}: the host's name cannot be one: {error}.") from error
    except ValueError as error:
        raise UsageError(f"{flag} {url}: {error}.") from error
    if parts.query or parts.fragment:
        raise UsageError(f"{flag} {url}: must end with the path, without ? or #.")
    if parts.username is not None:
        advice = "; see --api-key-env" if flag == "--url" else ""
        raise UsageError(f"{flag}: must not hold a user name or password{advice}.")
    return parts
