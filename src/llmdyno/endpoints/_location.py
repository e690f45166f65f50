"""What a URL says beyond its host: a base path, or a whole one that names the endpoint and model.

People paste what they have: `https://host/v1`, or the URL of the request itself. The paths of the
endpoints are their own (`Endpoint.path`); here a URL is held against each of them.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from llmdyno import plugins
from llmdyno.endpoints._answers import MODELS_PATH
from llmdyno.endpoints._interface import Endpoint
from llmdyno.errors import UsageError

_MODEL = "\0"  # stands for the model in a path
_VERSION = re.compile(r"/v\d+(?=/)")
# The same resource without a stream, which people know better.
_STREAM = "_stream"


class Location(msgspec.Struct, frozen=True):
    """What a URL says."""

    url: str  # of the server, with the path to which an endpoint's own one is appended
    endpoint: str = ""  # empty: the URL does not say
    model: str = ""
    version: str = ""  # the beginning of the endpoint's path whose place the URL's path takes
    query: str = ""  # of the requests, without the question mark


class _Match(msgspec.Struct, frozen=True):
    """An endpoint's path at the end of a URL's."""

    endpoint: str
    text: str  # the part of the URL's path
    model: str = ""
    version: str = ""


def locate(url: str, endpoint: str) -> Location:
    """Return what a URL says; one that ends with no endpoint's path is a base URL as it is.

    Args:
        url: the user's.
        endpoint: the name of the user's; "auto" or empty: any.

    Raises:
        UsageError: its path is another endpoint's than the one that was named.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # the target's parser has the sentence for it
        return Location(url)
    path = parts.path.rstrip("/")
    if path.endswith(MODELS_PATH):
        return Location(url.partition("?")[0].rstrip("/").removesuffix("/models"))
    # Without a path there is nothing to hold against the endpoints'.
    matches = list(_matches(path)) if path and parts.scheme in {"http", "https"} else []
    if endpoint not in {"", "auto"}:
        matches = _own(matches, path, endpoint, url)
    if not matches:
        return Location(url)
    longest = max(map(_length, matches))
    best = [match for match in matches if _length(match) == longest]
    base = SplitResult(parts.scheme, parts.netloc, path[:-longest], "", "").geturl()
    return Location(
        url=base,
        endpoint=best[0].endpoint if len(best) == 1 else "",
        model=best[0].model,
        version=best[0].version,
        query=parts.query,
    )


def _own(matches: Iterable[_Match], path: str, endpoint: str, url: str) -> list[_Match]:
    """Return those of the endpoint that the user named; none: the whole path is a prefix."""
    own = _match(path, plugins.load("endpoints", endpoint))
    others = [match for match in matches if match.endpoint != endpoint]
    other = max(others, key=_length, default=None)
    if other is None or _length(other) <= max(map(_length, own), default=0):
        return own
    # A shorter path at the end of a longer one is none of its own. A word that could be part of any
    # prefix is no endpoint's.
    if own or _VERSION.match(other.text):
        raise UsageError(
            f"--endpoint {endpoint}: the path of --url {url} is that of {other.endpoint}; leave out"
            " one of the two."
        )
    return []


def _length(match: _Match) -> int:
    return len(match.text)


def _matches(path: str) -> Iterator[_Match]:
    for name in plugins.names("endpoints"):
        endpoint: Endpoint = plugins.load("endpoints", name)
        if not endpoint.rpc:
            yield from _match(path, endpoint)


def _match(path: str, endpoint: Endpoint) -> list[_Match]:
    """Return how an endpoint's path, whole or without its version, ends a URL's path."""
    whole = endpoint.path(_MODEL).replace("%00", _MODEL)
    found = []
    if (version := _VERSION.match(whole)) and _MODEL not in whole:
        rest = whole[version.end() :]
        if path.endswith(rest) and not path.endswith(whole):
            found.append(_Match(endpoint.name, rest, version=version[0]))
    pattern = re.escape(whole).replace(re.escape(_MODEL), "([^/]+)")
    if pattern.endswith(_STREAM):
        pattern = f"{pattern.removesuffix(_STREAM)}(?:{_STREAM})?"
    if match := re.search(f"{pattern}$", path):
        model = unquote(match[1]) if match.groups() else ""
        found.append(_Match(endpoint.name, match[0], model=model))
    return found
