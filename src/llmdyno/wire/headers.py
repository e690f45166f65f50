"""Headers that the user adds to each request, and which of them are secrets.

A secret comes from a variable of the environment. Its value is sent to the server and to nobody
else: it never reaches a file, a log or a report. `Target.redact` blanks it out where a server
repeats it.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from llmdyno.errors import UsageError

API_KEY_VARIABLE = "LLMDYNO_API_KEY"  # read if it is set; any other must be
FOR_THE_PROXY = "proxy-authorization"  # goes to the proxy, never to the server

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A missing name is repeated only if it looks like one: any other word may be the key itself.
_VARIABLE = re.compile(r"_?[A-Z]{1,16}(?:_[A-Z0-9]{1,16}){0,6}")
_SECRET = re.compile(r"auth|key|token|secret|passw|credential|cookie|session|sign", re.IGNORECASE)
_SCHEME = re.compile(r"(?:Bearer|Basic|Token) +", re.IGNORECASE)
_SECRET_CHARACTERS_MIN = 4  # a shorter value, such as "1", would blank out every number
# They belong to the connection or frame the message, so that another value breaks the request.
_OURS = frozenset(
    """
    connection keep-alive proxy-connection te trailer transfer-encoding upgrade expect
    content-length content-encoding http2-settings
    """.split()
)
_OURS_OVER_GRPC = frozenset({"content-type", "grpc-timeout", "grpc-encoding", "host"})


class Header(msgspec.Struct, frozen=True):
    """A header of every request; of a secret one, what is hidden in a server's words."""

    name: str
    value: str
    secret: str = ""  # the text that is hidden; empty: the value is no secret
    shown: str = ""  # what stands there instead

    @property
    def key(self) -> str:
        """The name in lower case: two headers with the same key are the same one."""
        return self.name.lower()


def plain(text: str) -> Header:
    """Return the header of a `--header`; it counts as a secret if its name sounds like one.

    Raises:
        UsageError: the text is no "Name: value", or we alone may send a header of that name.
    """
    name, colon, value = text.partition(":")
    if not colon:
        name = name.split("=")[0]  # what follows may be a secret
        raise UsageError(f"--header {name}: write 'Name: value', with a colon.")
    _check_name("--header", name)
    header = _checked(f"--header {name}", name, value.strip(" \t"))
    return _hidden(header) if sounds_secret(name) else header


def sounds_secret(name: str) -> bool:
    """Return whether what has this name is likely to be a secret."""
    return _SECRET.search(name) is not None


def api_key(key: str | None) -> tuple[Header, ...]:
    """Return the header with a bearer token; no header for no key.

    A line end after the key, as files have, is left out.

    Raises:
        UsageError: the key cannot be part of a header.
    """
    key = (key or "").strip()
    if not key.isprintable() or not key.isascii() or " " in key:
        raise UsageError(
            "--api-key-env: the variable holds a blank, a line end or a character beyond ASCII"
            " within the key."
        )
    return (Header("Authorization", f"Bearer {key}", key, "[API key]"),) if key else ()


def from_variables(
    header_env: Sequence[str],
    basic_auth_env: str,
    api_key_env: str | None,
    variables: Mapping[str, str],
    given: Iterable[Header] = (),
) -> tuple[Header, ...]:
    """Return the headers whose values stand in variables of the environment.

    Args:
        header_env: each as "Name=VARIABLE".
        basic_auth_env: the variable with "user:password"; empty: no such header.
        api_key_env: the variable with the API key, which must be set; None: API_KEY_VARIABLE,
            which need not, and which any other Authorization overrides.
        variables: the environment.
        given: the headers of `--header`.

    Raises:
        UsageError: a variable is not set, or its value cannot be what it should be.
    """
    found = [_from_variable(text, variables) for text in header_env]
    if basic_auth_env:
        flag = "--basic-auth-env"
        found.append(_basic(_value(flag, f"{flag} {basic_auth_env}", basic_auth_env, variables)))
    if api_key_env is not None:
        flag = "--api-key-env"
        found += api_key(_value(flag, f"{flag} {api_key_env}", api_key_env, variables))
    elif not any(header.key == "authorization" for header in (*given, *found)):
        found += api_key(variables.get(API_KEY_VARIABLE))
    return tuple(found)


def check_once(headers: Iterable[Header]) -> None:
    """Refuse a header that is given twice.

    Raises:
        UsageError: names the header.
    """
    seen: set[str] = set()
    for header in headers:
        if header.key in seen:
            raise UsageError(
                f"{header.name}: is set twice; only one of --header, --header-env,"
                " --basic-auth-env and --api-key-env may set it."
            )
        seen.add(header.key)


def check_protocol(headers: Iterable[Header], *, rpc: bool, forwarded: bool) -> None:
    """Refuse headers that the target's protocol has no place for.

    Args:
        headers: of every request.
        rpc: it is gRPC, where they are metadata.
        forwarded: an HTTP proxy reads each request, and takes the host from its first line.

    Raises:
        UsageError: names the header.
    """
    for header in headers:
        if rpc and header.key in _OURS_OVER_GRPC:
            raise UsageError(f"--header {header.name}: gRPC sets it itself.")
        if forwarded and header.key == "host":
            raise UsageError(
                f"--header {header.name}: the proxy takes the host from the URL; write it there."
            )


def _from_variable(text: str, variables: Mapping[str, str]) -> Header:
    name, equals, variable = (part.strip() for part in text.partition("="))
    if not equals or not variable:
        raise UsageError(f"--header-env {name}: write Name=VARIABLE.")
    _check_name("--header-env", name)
    flag = f"--header-env {name}"
    value = _value(flag, f"{flag}={variable}", variable, variables).strip()
    return _hidden(_checked(flag, name, value))


def _value(flag: str, given: str, variable: str, variables: Mapping[str, str]) -> str:
    """Return a variable's value.

    Args:
        flag: that names the variable, as far as it holds no secret.
        given: the flag with the variable's name, as the user wrote it.
        variable: its name.
        variables: of the environment.
    """
    value = variables.get(variable)
    if value is None and not _VARIABLE.fullmatch(variable):  # it may be the secret itself
        raise UsageError(
            f"{flag}: what was given is no name of a variable of the environment; write the name of"
            " one that holds the value, not the value."
        )
    if value is None:
        raise UsageError(f"{given}: there is no such variable in the environment.")
    if not value.strip():
        raise UsageError(f"{given}: the variable is empty.")
    return value


def _basic(pair: str) -> Header:
    user, colon, password = pair.rstrip("\r\n").partition(":")
    if not colon:
        raise UsageError("--basic-auth-env: the variable must hold user:password.")
    coded = b64encode(f"{user}:{password}".encode()).decode()
    return Header("Authorization", f"Basic {coded}", coded, "[password]")


def _check_name(flag: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{flag} {name!r}: is no name of a header.")
    if name.lower() in _OURS:
        raise UsageError(f"{flag} {name}: belongs to the connection; dyno sets it itself.")


def _checked(given: str, name: str, value: str) -> Header:
    if not value:
        raise UsageError(f"{given}: has no value.")
    if not (value.isascii() and value.replace("\t", " ").isprintable()):
        raise UsageError(f"{given}: its value must be printable ASCII, without a line end in it.")
    return Header(name, value)


def _hidden(header: Header) -> Header:
    secret = _SCHEME.sub("", header.value, count=1)
    if len(secret) < _SECRET_CHARACTERS_MIN:
        return header
    return Header(header.name, header.value, secret, f"[{header.name}]")
