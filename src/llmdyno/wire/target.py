"""The target: a URL and its options, checked once, and the head of each request to it.

Everything that sends to the server under test gets a Target, so a wrong URL, key, certificate or
proxy is refused before anything starts.
"""

import re
import ssl
from collections.abc import Iterator, Sequence
from itertools import chain
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

import msgspec

from llmdyno.errors import UsageError
from llmdyno.wire import headers
from llmdyno.wire.headers import Header
from llmdyno.wire.tls import tls_context

# Characters that stay as they are in a path (RFC 3986); a percent sign counts as an escape.
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
_VERSION = re.compile(r"/v[12]$")  # OpenAI's and KServe's, with which their paths begin
# What each request says; a header of the user's of the same name, in lower case, takes its place.
_HEADERS = (
    ("content-type", "Content-Type: application/json"),
    ("accept", "Accept: text/event-stream, application/json"),
    ("accept-encoding", "Accept-Encoding: identity"),
    ("user-agent", "User-Agent: llmdyno"),
)
_TELLING_CHARACTERS = 4  # the shortest beginning of a secret that is redacted
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
    version: str = ""  # such as "/v1": the prefix has it, or another in its place
    query: str = ""  # of each request, without the question mark
    headers: tuple[Header, ...] = ()
    ca_cert: str | None = None  # PEM file of trusted certificates, instead of the system's store
    insecure: bool = False  # trust any certificate
    client_cert: str | None = None  # PEM file of the certificate by which the server knows us
    client_key: str | None = None  # of its key; None: the key is in the same file
    proxy: tuple[str, int] | None = None  # host and port
    proxy_headers: tuple[Header, ...] = ()  # for the proxy alone
    rpc: bool = False  # it speaks gRPC, not HTTP/1.1: see grpc.py

    def head(self, path: str, length: int) -> bytes:
        """Return the request line and headers of a POST with a JSON body of `length` bytes.

        Args:
            path: without the target's prefix.
            length: of the body in bytes.
        """
        # A proxy that forwards plain HTTP needs the whole URL.
        forwarded = self.proxy is not None and not self.tls
        origin = f"http://{self.authority}" if forwarded else ""
        given = {header.key for header in self.headers}
        lines = [
            f"POST {origin}{self.resource(path)} HTTP/1.1",
            *(() if "host" in given else (f"Host: {self.authority}",)),
            *(line for key, line in _HEADERS if key not in given),
            f"Content-Length: {length}",
            *(f"{header.name}: {header.value}" for header in self.headers),
        ]
        if forwarded:
            lines += (f"{header.name}: {header.value}" for header in self.proxy_headers)
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def resource(self, path: str) -> str:
        """Return what is asked for in a request line: the path with prefix and query.

        A version with which both the prefix ends and the path begins is there once.
        """
        if self.version and f"{path}/".startswith(f"{self.version}/"):
            path = path[len(self.version) :]
        return f"{self.prefix}{path}?{self.query}" if self.query else f"{self.prefix}{path}"

    def redact(self, text: str) -> str:
        """Return a server's text with the API key and other secrets blanked out.

        The beginning of a secret at the end of the text is blanked out too, because texts are cut
        short before they are redacted.
        """
        return "".join(self.redact_parts([text]))

    def redact_parts(self, parts: Sequence[str]) -> list[str]:
        """Redact a text that came in parts; a secret may be spread over several of them."""
        text = "".join(parts)
        hidden = sorted(
            (low, high, header.shown)
            for header in chain(self.headers, self.proxy_headers)
            if header.secret
            for low, high in _places(text, header.secret)
        )
        if not hidden:
            return list(parts)
        found = []
        start = 0
        for part in parts:
            end = start + len(part)
            kept = ""
            at = start
            for low, high, shown in hidden:
                kept += text[at : max(at, min(low, end))]
                kept += shown if start <= low < end else ""
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

    Texts are cut short before they are redacted, maybe in the middle of it.
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
    version: str = "",
    query: str = "",
    more_headers: Sequence[Header] = (),
    ca_cert: str | None = None,
    insecure: bool = False,
    client_cert: str | None = None,
    client_key: str | None = None,
    proxy: str | None = None,
    flag: str = "--url",
) -> Target:
    """Return the target of a base URL and its options.

    Args:
        url: http://, https://, grpc:// or grpcs://, with a host.
        api_key: sent as a bearer token; None: no such header.
        version: the beginning of paths, such as "/v1", whose place the URL's path takes. That of
            a path that ends with /v1 or /v2 need not be given.
        query: of each request, without the question mark.
        more_headers: sent with each request, besides the key's.
        ca_cert: a PEM file of trusted certificates, instead of the system's store.
        insecure: trust any certificate.
        client_cert: a PEM file of the certificate by which the server knows us.
        client_key: a PEM file of that certificate's key; None: it is in the same file.
        proxy: http://host:port.
        flag: where the URL was given, for an error's sentence.

    Raises:
        UsageError: the URL or the proxy is none of these, the certificates cannot be read, the key
            cannot be a header, or an option does not fit the URL's scheme.
    """
    parts = _split(flag, url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise UsageError(f"{flag} {url}: write http://host:port, https://host or grpc://host:port.")
    if parts.port == 0:
        raise UsageError(f"{flag} {url}: nobody listens on port 0.")
    tls, rpc, port = _SCHEMES[parts.scheme]
    _check_tls(url, tls=tls, ca_cert=ca_cert, insecure=insecure, client=client_cert or client_key)
    if client_key and not client_cert:
        raise UsageError(f"--client-key {client_key}: needs --client-cert FILE, its certificate.")
    prefix = parts.path.rstrip("/")
    if rpc and prefix:
        raise UsageError(f"{flag} {url}: a gRPC address ends with its port, without {prefix}.")
    ends_with = _VERSION.search(prefix)
    every = (*more_headers, *headers.api_key(api_key))
    headers.check_once(every)
    headers.check_protocol(every, rpc=rpc, forwarded=bool(proxy) and not tls and not rpc)
    if not proxy and any(header.key == headers.FOR_THE_PROXY for header in every):
        raise UsageError("Proxy-Authorization: is for a proxy; name it with --proxy.")
    target = Target(
        host=parts.hostname,
        port=parts.port or port,
        tls=tls,
        rpc=rpc,
        prefix=quote(prefix, safe=_PATH_CHARACTERS),
        version=version or (ends_with[0] if ends_with else ""),
        query=_checked_query(query),
        headers=tuple(header for header in every if header.key != headers.FOR_THE_PROXY),
        ca_cert=ca_cert,
        insecure=insecure,
        client_cert=client_cert,
        client_key=client_key,
        proxy=_parse_proxy(proxy) if proxy else None,
        proxy_headers=tuple(header for header in every if header.key == headers.FOR_THE_PROXY),
    )
    _check_certificates(target)
    return target


def _checked_query(query: str) -> str:
    """Return a query as it is sent; it stands in files as the URL does, so no secret may be in it.

    Raises:
        UsageError: one of its names sounds like a secret's.
    """
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if headers.sounds_secret(name):
            raise UsageError(
                f"--url: must not hold a secret such as '{name}', because a URL is written to"
                " files; see --header-env."
            )
    return quote(query, safe=f"{_PATH_CHARACTERS}?")


def _check_tls(
    url: str, *, tls: bool, ca_cert: str | None, insecure: bool, client: str | None
) -> None:
    """Refuse the flags of TLS for a URL without it."""
    if tls or not (ca_cert or insecure or client):
        return
    flag = "--ca-cert" if ca_cert else "--insecure" if insecure else "--client-cert"
    raise UsageError(f"{flag}: only for an https:// URL, or grpcs://, not for {url}.")


def _check_certificates(target: Target) -> None:
    """Read the certificates now, so that a wrong file is told before anything starts."""
    if target.ca_cert:
        try:
            tls_context(target.ca_cert, target.insecure, target.rpc)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--ca-cert {target.ca_cert}: is no PEM file of certificates: {error}."
            ) from error
    if not target.client_cert:
        return
    try:
        own_context(target)
    except ssl.SSLError as error:
        where = f"--client-cert {target.client_cert}"
        if target.client_key:
            where += f", --client-key {target.client_key}"
        why = "the key does not belong to the certificate" if "MISMATCH" in str(error) else error
        raise UsageError(
            f"{where}: must be PEM files of a certificate and its key, not encrypted: {why}."
        ) from error
    except OSError as error:
        flag = "--client-key" if error.filename == target.client_key else "--client-cert"
        raise UsageError(f"{flag} {error.filename}: cannot be read: {error.strerror}.") from error


def own_context(target: Target) -> ssl.SSLContext:
    """Return the TLS context of connections to a target.

    Raises:
        OSError: a file of certificates cannot be read; SSLError, a subclass: it is no PEM file.
    """
    return tls_context(
        target.ca_cert, target.insecure, target.rpc, target.client_cert, target.client_key
    )


def _parse_proxy(proxy: str) -> tuple[str, int]:
    parts = _split("--proxy", proxy)
    if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path.strip("/"):
        raise UsageError(f"--proxy {proxy}: write http://host:port.")
    return parts.hostname, parts.port


def _check_host(host: str) -> None:
    """Raise UnicodeError for a name that getaddrinfo will not take."""
    if blank := re.search(r"[\s<>\"'{}|\\^`]", host):
        raise UnicodeError(f"it has {blank[0]!r} in it")
    labels = host.removesuffix(".").split(".")
    is_plain = host.isascii() and all(0 < len(label) < 64 for label in labels)
    if host and not is_plain:  # else the codec, which takes 10 ms to import, agrees
        host.encode("idna")


def _split(flag: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here because it may be no number
        _check_host(parts.hostname or "")
    except UnicodeError as error:
        raise UsageError(f"{flag} {url}: the host's name cannot be one: {error}.") from error
    except ValueError as error:
        bare = url.partition("://")[2].partition("/")[0].count(":") > 1 and "[" not in url
        why = "write an IPv6 address in brackets, e.g. http://[::1]:8000" if bare else str(error)
        raise UsageError(f"{flag} {url}: {why}.") from error
    if parts.query or parts.fragment:
        raise UsageError(f"{flag} {url}: must end with the path, without ? or #.")
    if parts.username is not None:
        advice = "; see --api-key-env" if flag == "--url" else ""
        raise UsageError(f"{flag}: must not hold a user name or password{advice}.")
    return parts
