"""What the answers of a server that did not do what it was asked tell about it, in a sentence.

detect.py and rehearsal.py hand over what was asked and answered. Here stands how a proxy, a web
page, a metrics port, a server that wants a key and the like are recognised, and what helps.
"""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import urljoin, urlsplit

import msgspec

from llmdyno.endpoints import error_of
from llmdyno.faults import REDIRECTS
from llmdyno.wire.exchange import Response
from llmdyno.wire.target import Target

_MODELS_MAX = 8  # that a sentence names
_WORDS_MAX = 300
# What only the error page of a proxy says → the proxy. One name has several pages.
_PAGES = (
    (b"<center>nginx", "nginx"),
    (b"<center>openresty", "OpenResty"),
    (b"No server is available to handle this request", "HAProxy"),
    (b"The server didn't respond in time", "HAProxy"),
    (b"returned an invalid or incomplete response", "HAProxy"),
    (b"cloudflare", "Cloudflare"),
    (b"upstream connect error", "Envoy"),
    (b"no healthy upstream", "Envoy"),
    (b"upstream request timeout", "Envoy"),
    (b"no available server", "Traefik"),
    (b"Varnish cache server", "Varnish"),
    (b"squid", "Squid"),
    (b"The proxy server received an invalid", "Apache"),
)
# A part of the header Server or Via, in lower case → the proxy.
_PROXIES = (
    *(("openresty", "OpenResty"), ("nginx", "nginx"), ("haproxy", "HAProxy")),
    *(("cloudflare", "Cloudflare"), ("cloudfront", "CloudFront"), ("envoy", "Envoy")),
    *(("caddy", "Caddy"), ("traefik", "Traefik"), ("varnish", "Varnish"), ("squid", "Squid")),
    *(("awselb", "AWS's load balancer"), ("akamai", "Akamai"), ("kong", "Kong")),
    *(("google", "Google's front end"), ("gfe", "Google's front end"), ("apache", "Apache")),
)
_FROM_BEHIND = frozenset({502, 504})  # a gateway's own statuses
_TITLE = re.compile(rb"<title[^>]*>\s*(.*?)\s*</title", re.IGNORECASE | re.DOTALL)
_METRIC = re.compile(rb"^# (?:HELP|TYPE) [a-zA-Z_:][\w:]* |^[a-zA-Z_:][\w:]*\w(?:\{[^}\n]*\})? \d")
_WANTS_TLS = ("HTTP request was sent to HTTPS port", "HTTP request to an HTTPS server")
_WANTS_CERTIFICATE = ("No required SSL certificate", "SSL certificate error")


class Answer(msgspec.Struct, frozen=True):
    """One question to a server, and its response."""

    method: str
    path: str  # without the target's prefix
    response: Response


def explain(target: Target, answers: Sequence[Answer]) -> str:
    """Return what the answers have in common, in a sentence without an end; empty: nothing known.

    Args:
        target: the server.
        answers: in the order in which they came; the more telling one counts.
    """
    for look in (_fault, _key, _elsewhere, _broken, _stranger):
        for answer in answers:
            if said := look(target, answer):
                return target.redact(said)
    return ""


def unknown_paths(target: Target, answers: Sequence[Answer]) -> str:
    """Return in a sentence without an end that a server knows none of the paths it was asked for.

    Empty: it knew one.
    """
    if not answers or not {answer.response.status for answer in answers} <= {404, 405}:
        return ""
    paths = ", ".join(dict.fromkeys(target.resource(answer.path) for answer in answers))
    return (
        f"a web server answers there, but it knows none of these paths: {paths}; if the path is"
        " another one, give the whole of it as --url, e.g. http://host/api/chat/completions"
    )


def wrong_model(model: str, known: Sequence[str]) -> str:
    """Return that a server does not have a model, and which ones it has, the nearest first."""
    import difflib  # as errors.nearest does

    lower = model.lower()

    def distance(name: str) -> float:
        return -difflib.SequenceMatcher(None, lower, name.lower()).ratio()

    names = sorted(known, key=distance)
    more = f" and {len(names) - _MODELS_MAX} more" if len(names) > _MODELS_MAX else ""
    return f"--model {model}: the server has no such model; it has {_listed(names)}{more}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:_MODELS_MAX])


def who(response: Response) -> tuple[str, bool]:
    """Return who wrote a response, and whether that is a proxy in front of the server."""
    body = response.body()
    named = f"{response.headers.get('server', '')} {response.headers.get('via', '')}".lower()
    proxy = next((name for part, name in _PROXIES if part in named), "")
    page = next((name for part, name in _PAGES if part in body), "")
    if page:
        return page, True
    if response.status in _FROM_BEHIND:
        return proxy or "a proxy", True
    is_page = not body.strip() or body.lstrip().startswith(b"<")
    if proxy and is_page:
        return proxy, True
    behind = f" behind {proxy}" if proxy else ""
    own = response.headers.get("server", "") if not proxy else ""
    return f"the server{f' ({own})' if own else ''}{behind}", False


def words_of(response: Response) -> str:
    """Return a response's own words: of its error, or of the title of its page."""
    body = response.body()
    if title := _TITLE.search(body):
        return title[1][:_WORDS_MAX].decode(errors="replace")
    return "" if body.lstrip().startswith(b"<") else error_of(body)


def _quoted(response: Response) -> str:
    words = words_of(response).rstrip(".")  # a sentence of ours goes on
    return f": {words}" if words else ""


def _fault(_target: Target, answer: Answer) -> str:
    """Of a connection that speaks something else."""
    response = answer.response
    if response.error in {"tls", "bad-http", "bad-grpc"}:
        return response.detail
    if response.error == "grpc-unimplemented":
        return f"it speaks gRPC, but not Triton's protocol: {response.detail}"
    text = response.body()[:2_000].decode(errors="replace")
    if response.status == 400 and any(words in text for words in _WANTS_TLS):
        return "the server speaks TLS: give its URL with https://"
    if response.status in {400, 495, 496} and any(words in text for words in _WANTS_CERTIFICATE):
        return "the server wants to know who asks: see --client-cert and --client-key"
    return ""


def _key(target: Target, answer: Answer) -> str:
    response = answer.response
    if response.status == 407:
        return (
            f"the proxy wants to know who asks{_quoted(response)}; put its credentials into a"
            " variable, and write --header-env Proxy-Authorization=VARIABLE"
        )
    refused = response.error in {"grpc-unauthenticated", "grpc-permission-denied"}
    if response.status not in {401, 403} and not refused:
        return ""
    name = "the server" if refused else who(response)[0]
    status = response.error or f"status {response.status}"
    said = f": {response.detail}" if refused and response.detail else _quoted(response)
    secrets = [header for header in target.headers if header.secret]
    if secrets:
        sent = " and ".join(header.name for header in secrets)
        return (
            f"{name} does not accept what was sent as {sent} ({status}){said}; look at the variable"
            " of --api-key-env, --header-env or --basic-auth-env"
        )
    if response.headers.get("www-authenticate", "").lower().startswith("basic"):
        wanted, flag = "password", "--basic-auth-env VARIABLE"
    else:
        wanted = "key"
        flag = "--api-key-env VARIABLE, or --header-env Name=VARIABLE for a key of another name"
    return (
        f"{name} wants a {wanted}, and none was given ({status}){said}; put it into a variable, and"
        f" write {flag}"
    )


def _elsewhere(target: Target, answer: Answer) -> str:
    response = answer.response
    if response.status not in REDIRECTS:
        return ""
    asked = f"{'https' if target.tls else 'http'}://{target.authority}"
    place = location(response, asked + target.resource(answer.path))
    if not place:
        return f"it redirects (status {response.status}) and does not say where to"
    base = place.partition("?")[0]
    if answer.path and base.rstrip("/").endswith(answer.path):
        base = base.rstrip("/").removesuffix(answer.path)
        return f"it redirects to {place} (status {response.status}): give {base} as --url"
    return f"it redirects to {place} (status {response.status}): give what serves there as --url"


def location(response: Response, asked: str) -> str:
    """Return where a redirect leads, as a whole URL; empty if it does not say.

    Args:
        response: the redirect.
        asked: the whole URL that was asked for.
    """
    place = response.headers.get("location", "")
    if not place:
        return ""
    try:
        whole = urlsplit(urljoin(asked, place))
    except ValueError:
        return place
    return whole.geturl()


def _broken(_target: Target, answer: Answer) -> str:
    response = answer.response
    if response.status == 429:
        name, _ = who(response)
        return f"{name} takes no more requests now (status 429){_quoted(response)}; ask later"
    if response.status < 500:
        return ""
    name, is_proxy = who(response)
    if is_proxy:
        return (
            f"{name}, in front of the server, answered with status {response.status}"
            f"{_quoted(response)}; the server behind it is not there, or not ready: look after it"
        )
    return (
        f"{name} answered with status {response.status}{_quoted(response)}; it is not ready, or"
        " broken: look at its log"
    )


def _stranger(_target: Target, answer: Answer) -> str:
    """Of a response that is none of ours, though its status is 200."""
    response = answer.response
    body = response.body()
    if response.status != 200 or not body.strip():
        return ""
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/html") or body.lstrip()[:15].lower().startswith(
        (b"<!doctype", b"<ht")
    ):
        title = words_of(response)
        named = f" with the title '{title}'" if title else ""
        return f"a web page answers there{named}: give the address of the model's API as --url"
    if is_metrics(body):
        return "a page of metrics (Prometheus) answers there: give the port of the model's API"
    return ""


def is_metrics(body: bytes) -> bool:
    """Return whether a body is a page in Prometheus's text format."""
    return any(_METRIC.match(line) for line in body[:4_000].splitlines()[:20])


def foreign_json(answers: Iterable[Answer]) -> str:
    """Return in a sentence without an end that a server answers with JSON of something else."""
    for answer in answers:
        body = answer.response.body().strip()
        if answer.response.status == 200 and body[:1] in {b"{", b"["}:
            beginning = body[:80].decode(errors="replace")
            return f"it answers GET {answer.path} with JSON of something else: {beginning}"
    return ""
