"""What typer knows of a command: the flags that a spec's fields are, and a command's own ones.

`command` gives a function the flags of these fields and writes every default into the help, from
the one place where it stands: the spec's field, or the function's own signature.
"""

import inspect
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
import typer
from typer.models import OptionInfo

from llmdyno.flag import TRUTH, Field
from llmdyno.wire.headers import API_KEY_VARIABLE

Text = str | None


RESULTS = "Results"  # the heading of what a command writes


def option(
    *names: str,
    help: str,  # noqa: A002  # typer's own word
    metavar: str | None = None,
    heading: str = "",
    **more: Any,
) -> Any:
    """Return an option of a command's own; `command` writes its default into its help.

    Args:
        names: of the option.
        help: what it is for.
        metavar: what the help writes for its value.
        heading: under which a long help has it, as a field's `Flag.heading`.
        more: for typer.
    """
    return typer.Option(
        *names,
        help=help,
        metavar=metavar,
        rich_help_panel=heading or None,
        show_default=False,
        **more,
    )


# Options that several commands take and no spec has.
Out = Annotated[
    Text, option("--out", help="Folder of the results.", metavar="DIR", heading=RESULTS)
]
AsJson = Annotated[
    bool,
    option(
        "--json", help="Print the result as one JSON document, last on stdout.", heading=RESULTS
    ),
]
Sets = Annotated[
    list[str] | None,
    option("--set", help="Set a knob; may be repeated.", metavar="KNOB=VALUE", heading="Server"),
]
ContainerName = Annotated[
    str,
    option(
        "--container",
        help="Run the engine in its image: none, auto (if it is not installed), docker, podman,"
        " apptainer.",
        metavar="NAME",
    ),
]
ApiKeyEnv = Annotated[
    str | None,
    option(
        "--api-key-env",
        help=f"Environment variable that holds the API key. [{API_KEY_VARIABLE}]",
        metavar="VARIABLE",
        heading="Connection",
    ),
]
CaCert = Annotated[
    str | None, option("--ca-cert", help="PEM file of certificates to trust.", metavar="FILE")
]
Insecure = Annotated[bool, option("--insecure", help="Do not check the server's certificate.")]
Port = Annotated[int, option("--port", help="Port to listen on.", metavar="PORT", min=1, max=65535)]

Command = Callable[..., None]


def command(fields: Iterable[Field] = ()) -> Callable[[Command], Command]:
    """Make a function a command; with fields, its first argument is what was given of them.

    It is a mapping from a flag's name ("think_time") to what the user gave. A flag that was not
    given is not in it: its default is the spec's own.
    """
    flags = {field.name: _parameter(field) for field in fields}

    def decorate(function: Command) -> Command:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        own = [_with_default_in_help(parameter) for parameter in (own[1:] if flags else own)]

        def called(**values: Any) -> None:
            if not flags:
                function(**values)
                return
            given = {name: values.pop(_word(name)) for name in flags}
            # A list that was not given is empty.
            function({name: one for name, one in given.items() if one not in (None, [])}, **values)

        parameters = [*flags.values(), *own]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        called.__name__, called.__doc__ = function.__name__, function.__doc__
        return called

    return decorate


# Flags that may stand without a value, and the value that this means; _parameter fills it.
BARE: dict[str, str] = {}


def _is_percentage(word: str) -> bool:
    return re.fullmatch(r"[\d.]+\s*%", word) is not None


def _is_file_to_write(word: str) -> bool:
    """Tell whether a word after a flag is the file of it, and neither a flag nor a run."""
    from llmdyno import store
    from llmdyno.errors import UsageError

    if word == "-" or Path(word).is_file():
        return Path(word).suffix not in {".json", ".jsonl", ".yaml", ".yml"}
    if word.startswith(("-", "baseline:")) or "," in word:
        return False
    try:
        store.find(word)
    except UsageError:
        return True
    return False


# The same for flags of one command: what this means, and whether a word after it is its value.
OPTIONAL: Mapping[tuple[str, str], tuple[str, Callable[[str], bool]]] = {
    ("compare", "--markdown"): ("-", _is_file_to_write)
}


def with_values(arguments: Sequence[str], command: str = "") -> list[str]:
    """Return a command's arguments with a value at each flag that may stand without one.

    What follows such a flag is its value only if it is a percentage: else it may be a file.
    """
    found: list[str] = []
    own = {flag: one for (of, flag), one in OPTIONAL.items() if of == command}
    meant = {**{flag: (value, _is_percentage) for flag, value in BARE.items()}, **own}
    for argument in arguments:
        if found and found[-1] in meant:
            value, is_value = meant[found[-1]]
            if is_value(argument):
                found[-1] += f"={argument}"
                continue
            found[-1] += f"={value}"
        found.append(argument)
    if found and found[-1] in meant:
        found[-1] += f"={meant[found[-1]][0]}"
    return found


def _parameter(field: Field) -> inspect.Parameter:
    """Return the parameter of a command that is a field's flag."""
    if field.flag.kind.bare:
        BARE[field.option] = field.flag.kind.bare
    required = field.default is msgspec.NODEFAULT
    both = field.flag.kind is TRUTH and field.default is True
    name = f"{field.option}/--no-{field.option[2:]}" if both else field.option
    short = [other for other in field.flag.also if not other.startswith("--")]
    long = [other for other in field.flag.also if other.startswith("--")]
    info = option(
        *short,
        name,
        *long,
        help=_described(field.help, field.shown_default),
        metavar=field.metavar,
        heading=field.heading,
    )
    kind: Any = field.flag.kind.type
    return inspect.Parameter(
        _word(field.name),
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind if required else kind | None, info],
    )


def _word(name: str) -> str:
    """Return a flag's name as Python takes it for a parameter, which "from" is not."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _with_default_in_help(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a command's own parameter; if it is an option, its help says its default."""
    annotation, default = parameter.annotation, parameter.default
    if default not in (None, False, "", inspect.Parameter.empty):
        assert get_origin(annotation) is Annotated, parameter.name
        kind, info = get_args(annotation)
        if isinstance(info, OptionInfo):
            info = copy(info)
            info.help = _described(info.help or "", str(default))
            annotation = Annotated[kind, info]
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def _described(purpose: str, default: str) -> str:
    return f"{purpose} [{default}]" if default else purpose


def divided(described: str) -> tuple[str, str]:
    """Return the two parts of an option's help: what it is for, and the default in brackets."""
    purpose, bracket, default = described.removesuffix("]").rpartition(" [")
    return (purpose, default) if bracket and described.endswith("]") else (described, "")
