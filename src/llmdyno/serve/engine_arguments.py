"""`--engine-arg`: words for the engine's own command line, for what has no knob.

They go after everything that llmdyno says itself, so argparse and its like would take them for it:
a flag that a knob has, or that says where to listen and what to serve, is refused before anything
starts. Which flags those are is found by asking the engine for its command, with each knob set and
without, so that it holds for an engine of somebody else's, too.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from llmdyno.engines import Engine, Launch, facts
from llmdyno.engines._wrapped import WrappedEngine
from llmdyno.errors import UsageError
from llmdyno.fronts import Front, starts_server_of
from llmdyno.knobs import Config, Knob, Value, default
from llmdyno.processes.secrets import is_secret

FLAG = "--engine-arg"

_FLAG = re.compile(r"-{1,2}[A-Za-z][\w.-]*")
_NUMBER = re.compile(r"-[\d.]")
# Flags of one engine or another that would move the server from where its users look for it.
_OURS = frozenset(
    "host port model model-path model-id model-name served-model-name uds root-path config"
    " ssl-keyfile ssl-certfile ssl-ca-certs hostname server-name server-port http-port"
    " grpc-mode headless api-server-count".split()
)
_SECRET_FLAG = re.compile(
    r"api-?keys?$|(^|-)(keys?|secrets?|credentials?)$|passw|authorization"
    r"|(^|-)(hf|hub|auth|access|bearer|api|admin|refresh|huggingface)-?token$"
)
_SECRET_VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|(sk|nvapi|pk)-[\w-]{16,}|gh[pous]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,})"
    r"|Bearer\s+\S+|://[^/\s:@]+:[^/\s@]+@"
)
_SECRET_CHARACTERS_MIN = 6  # a shorter variable's value may stand in any word by chance


class EngineWithArguments(WrappedEngine):
    """An engine whose server gets words of its user after those of its own.

    Args:
        engine: the engine.
        arguments: the words, checked.
    """

    def __init__(self, engine: Engine, arguments: tuple[str, ...]) -> None:
        super().__init__(engine)
        self._arguments = arguments

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        """Return the engine's launch with the words at its end.

        Raises:
            UsageError: with this config the engine's own words have such a flag.
        """
        launch = super().launch(model, config, artifact=artifact, host=host, port=port)
        own = _flags_in(launch)
        for word in filter(_is_flag, self._arguments):
            if _plain(word) in own:
                raise _ours(word)
        return msgspec.structs.replace(launch, argv=(*launch.argv, *self._arguments))


def extended(engine: Engine, front: Front, model: str, arguments: tuple[str, ...]) -> Engine:
    """Return the engine with these words for its server's command line; without any, as it is.

    Raises:
        UsageError: a word is no flag and no flag's value, is llmdyno's or a knob's to say, or looks
            like a secret; or the engine or the front has no command line to put it on.
    """
    if not arguments:
        return engine
    check_arguments(engine, model, arguments)
    if not starts_server_of(front, engine):
        raise UsageError(
            f"{FLAG} {_shown(arguments[0])}: the front {front.name} does not start"
            f" {engine.name}'s own server, whose flag it would be; use another --front, or --set."
        )
    return EngineWithArguments(engine, arguments)


def check_arguments(engine: Engine, model: str, arguments: tuple[str, ...]) -> None:
    """Refuse words that cannot go on an engine's command line, whatever its front.

    Raises:
        UsageError: as extended() does.
    """
    if not arguments:
        return
    if not facts(engine).takes_arguments:
        raise UsageError(
            f"{FLAG} {_shown(arguments[0])}: {engine.name} has no flags beside its knobs; use --set"
            f" (dyno knobs {engine.name})."
        )
    _check_words(arguments)
    known = _Known(engine, model)
    for word in filter(_is_flag, arguments):
        _check_flag(word, known, engine)


def _check_words(arguments: Sequence[str]) -> None:
    """Refuse words that are no flags, and what looks like a secret."""
    before = ""
    for word in arguments:
        if not word or "\0" in word:
            raise UsageError(f"{FLAG} {word!r}: is empty; write {FLAG}=--flag=value.")
        if _is_secret(word, before):
            flag = _name(word if _is_flag(word) else before)
            raise UsageError(
                f"{FLAG} {flag}=•••: looks like a secret, and what is given here stands in files"
                " and logs; give it to the engine in a variable of its environment."
            )
        if not _is_flag(word) and not _is_flag(before):
            raise UsageError(
                f"{FLAG} {_shown(word)}: is no flag; write {FLAG}=--flag=value, or the value right"
                " after its flag."
            )
        if re.match(r"-[\w.-]+\s", word):
            raise UsageError(
                f"{FLAG} {_shown(word)}: is one word for the engine; write"
                f" {FLAG}={_name(word)}=value."
            )
        before = word


def _check_flag(word: str, known: "_Known", engine: Engine) -> None:
    flag = _plain(word)
    name = known.knobs.get(flag) or known.knobs.get(flag.removeprefix("no-"))
    if name is not None:
        value = word.partition("=")[2]
        switch = any(knob.name == name and knob.kind == "bool" for knob in engine.knobs)
        if not value.isprintable() or not value:
            value = ("true" if flag in known.knobs else "false") if switch else "VALUE"
        raise UsageError(
            f"{FLAG} {_shown(word)}: is the knob {name} of {engine.name}; use --set {name}={value}."
        )
    if flag in _OURS or flag in known.ours:
        raise _ours(word)


def _ours(word: str) -> UsageError:
    return UsageError(
        f"{FLAG} {_shown(word)}: dyno sets {_name(word)} itself; use dyno's own flags (--model,"
        " --host, --port, --set) or leave it out."
    )


class _Known:
    """The flags that an engine's launches hold: those that are always there, and each knob's."""

    def __init__(self, engine: Engine, model: str) -> None:
        self.ours: set[str] = set()
        self.knobs: dict[str, str] = {}  # flag → knob
        found: dict[str, set[str]] = {}
        base = _flags_of(engine, model, {})
        self.ours |= base
        for knob in engine.knobs:
            self.knobs[_plain(f"--{knob.name}")] = knob.name
            for value in _values(knob):
                new = _flags_of(engine, model, {knob.name: value}) - base
                if len(new) == 1:  # else the knob changes more of the command than its own flag
                    found.setdefault(new.pop().removeprefix("no-"), set()).add(knob.name)
        for flag, names in found.items():
            if len(names) == 1:
                self.knobs.setdefault(flag, *names)
            else:  # several are passed by one flag
                self.ours.add(flag)
        for flag, name in facts(engine).flag_aliases.items():
            self.knobs.setdefault(_plain(flag), name)


def _flags_of(engine: Engine, model: str, config: Mapping[str, Value]) -> set[str]:
    """Return the flags of the engine's command with this config; none where it has no command."""
    with contextlib.suppress(UsageError, ValueError):  # the value is only a probe
        place = Path("artifact")
        return _flags_in(engine.launch(model, config, artifact=place, host="127.0.0.1", port=1))
    return set()


def _flags_in(launch: Launch) -> set[str]:
    return {_plain(word) for word in launch.argv if _is_flag(word)}


def _values(knob: Knob) -> Iterable[Value]:
    """Return values that show the knob's flag: for a switch both, as only one may have a flag."""
    usual = default(knob, None)
    if knob.kind == "bool":
        return [value for value in (True, False) if value != usual][:1]
    if knob.kind == "choice":
        return knob.choices[-1:]
    if usual is not None:
        return (usual,)
    if knob.kind == "text":
        return ("x",)
    number = knob.search[0] if knob.search else (knob.low or 1)
    return (int(number) if knob.kind == "int" else float(number),)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not _NUMBER.match(word) and bool(_FLAG.match(word))


def _name(word: str) -> str:
    """Return a flag as it is written, without its value."""
    return re.split(r"[=\s]", word, maxsplit=1)[0]


def _plain(word: str) -> str:
    """Return a flag's name as all its spellings have it, without dashes before it."""
    return _name(word).lstrip("-").replace("_", "-")


def _is_secret(word: str, before: str) -> bool:
    name, equals, value = word.partition("=")
    if not _is_flag(word):
        name, equals, value = before, "=", word
    if equals and value and _SECRET_FLAG.search(_plain(name).lower()):
        return True
    if _SECRET_VALUE.search(word):
        return True
    secrets = (text for variable, text in os.environ.items() if is_secret(variable))
    return any(len(text) >= _SECRET_CHARACTERS_MIN and text in word for text in secrets)


def _shown(word: str) -> str:
    return word if len(word) <= 60 else f"{word[:57]}…"
