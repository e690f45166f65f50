"""A flag is one field of a spec: how its text is read, its help and its names stand with the field.

    timeout_s: Annotated[float, Flag(SECONDS, "Time limit of one request.")] = 600.0

The command line, the reader of TOML files and docs/commands.md are made from these; the default is
the field's own. A flag is called as its field is, without the unit, unless `name` says otherwise.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from llmdyno import files, plugins, units
from llmdyno.errors import UsageError


class Kind(msgspec.Struct, frozen=True):
    """A kind of value: how it is read, and how it is written."""

    # Takes what the user gave and the flag's name, for the sentence of the UsageError that it
    # raises when it cannot read it. A TOML file gives more than texts.
    read: Callable[[Any, str], Any]
    show: Callable[[Any], str] = str
    type: Any = str  # what the command line makes of the text before `read` sees it
    metavar: str | None = None  # what the help writes for a value
    bare: str = ""  # the text of a flag without a value; another one needs an equals sign


class Flag(msgspec.Struct, frozen=True):
    """What a field needs to be a flag."""

    kind: Kind
    help: str  # one sentence; the known plug-ins and the default are added to it
    also: tuple[str, ...] = ()  # further names on the command line, e.g. ("-c", "--concurrency")
    name: str = ""  # with underscores; empty: the field's, without the unit
    in_file: str = ""  # its key in a TOML file, where that is another
    metavar: str | None = None  # its kind's, where none is given
    # The heading under which the help has it, and those after it in the spec up to the next one.
    heading: str = ""
    default: str = ""  # says it in words where the field's own default does not
    # Whether `dyno tune` has it as a flag, in its TOML file alone, or not at all.
    tune: Literal["flag", "file", "never"] = "flag"
    plugins: str = ""  # its value names a plug-in of this kind, e.g. "engines"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a spec that is a flag."""

    name: str  # of the flag and in files: "think_time"
    attribute: str  # of the spec: "think_s"
    flag: Flag
    default: Any  # msgspec.NODEFAULT: it must be given
    heading: str = ""  # the flag's, or that of the last one before it which has one

    @property
    def key(self) -> str:
        """Its name in a TOML file."""
        return self.flag.in_file or self.name

    @property
    def option(self) -> str:
        """Its name on the command line: "--think-time"."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str | None:
        """What the help writes for its value; None: it takes none."""
        return self.flag.metavar or self.flag.kind.metavar

    @property
    def help(self) -> str:
        """What it is for, in a sentence."""
        if not self.flag.plugins:
            return self.flag.help
        return f"{self.flag.help}: {', '.join(plugins.names(self.flag.plugins))}."

    @property
    def shown_default(self) -> str:
        """Its default as the help shows it; empty: there is none."""
        if self.flag.default:
            return self.flag.default
        none = (msgspec.NODEFAULT, None, False)
        if any(self.default is one for one in none) or self.default in ("", (), {}):
            return ""
        return self.flag.kind.show(self.default)

    def read(self, value: Any) -> Any:
        """Return the field's value of what the user gave.

        Raises:
            UsageError: names the flag, what was given and what would be right.
        """
        return self.flag.kind.read(value, self.option)


def own_fields(spec: type[msgspec.Struct], like: msgspec.Struct | None = None) -> list[Field]:
    """Return the fields of a spec that are flags, those of its parts left out.

    Args:
        spec: the struct.
        like: an instance of it whose values are the defaults; None: the struct's own.
    """
    return [found for found, _ in _fields(spec, like) if found is not None]


def all_fields(spec: type[msgspec.Struct], like: msgspec.Struct | None = None) -> list[Field]:
    """Return the fields of a spec and of its parts that are flags, one for each name.

    A part, such as a benchmark's load, is a field whose default is a struct; its values there are
    the defaults. Where two have the same name, the spec's own goes before its parts'.
    """
    own = {found.name: found for found in own_fields(spec, like)}
    every: dict[str, Field] = {}
    for found, part in _fields(spec, like):
        inner = [found] if found is not None else all_fields(type(part), part)
        every |= {one.name: own.get(one.name, one) for one in inner}
    return list(every.values())


def _fields(
    spec: type[msgspec.Struct], like: msgspec.Struct | None
) -> list[tuple[Field | None, Any]]:
    """Return in order each flag of a spec, or the part that stands there instead."""
    found: list[tuple[Field | None, Any]] = []
    heading = ""
    for field in msgspec.structs.fields(spec):
        default = field.default
        if like is not None:
            default = getattr(like, field.name)
        elif field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        noted = get_args(field.type)[1:] if get_origin(field.type) is Annotated else ()
        flag = next((note for note in noted if isinstance(note, Flag)), None)
        if flag is not None:
            name, heading = flag.name or field.name.removesuffix("_s"), flag.heading or heading
            one = Field(
                name=name, attribute=field.name, flag=flag, default=default, heading=heading
            )
            found.append((one, None))
        elif isinstance(default, msgspec.Struct):
            found.append((None, default))
    return found


def _whole(value: Any, field: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise UsageError(f"{field} {value}: must be a whole number.")


def _number(value: Any, field: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise UsageError(f"{field} {value}: must be a number.")


def _truth(value: Any, field: str) -> bool:
    if isinstance(value, bool):
        return value
    raise UsageError(f"{field} {value}: must be true or false.")


def _text(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        raise UsageError(f"{field}: is a table; write a text in quotes, as it follows the flag.")
    raise UsageError(f"{field} {value}: must be a text in quotes.")


def _file_text(value: Any, field: str) -> str:
    try:
        return files.text(Path(_text(value, field))).strip()
    except files.FileError as error:
        raise UsageError(f"{field} {value}: {error}.") from error


def _counts(value: Any, field: str) -> tuple[int, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    try:
        return tuple(int(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field} {value}: write whole numbers, e.g. 10,50,100.") from error


def _rates(value: Any, field: str) -> tuple[float, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field} {value}: write requests per second, e.g. 1,2.5,4.") from error


def _names(value: Any, field: str) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else _text(value, field).split(",")
    return tuple(str(part).strip() for part in parts)


def _one_or_more(value: Any, field: str) -> str:
    """Return names joined by commas, of a text or of a file's list of texts."""
    if isinstance(value, str) and "," not in value:
        return value  # whether there is such a plug-in is said where it is loaded
    names = _names(value, field)
    if not names or not all(names):
        raise UsageError(f"{field} {value}: has an empty name; write names, e.g. a,b.")
    return ",".join(names)


def _texts(value: Any, field: str) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise UsageError(f"{field} {value}: must be a list of texts, each in quotes.")


def _count_or_auto(value: Any, field: str) -> int | str:
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field} {value}: write a whole number, or auto.") from error


def _config(value: Any, field: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise UsageError(f"{field} {value}: must be a table of knobs.")


def _configs(value: Any, field: str) -> tuple[dict[str, Any], ...]:
    name = field.removeprefix("--")  # a file has it, no command line
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise UsageError(f"{name} {value}: must be tables of knobs, each under [[{name}]].")
    return tuple(value)


def _permission(value: Any, field: str) -> bool | float:
    if isinstance(value, bool):
        return value
    return True if value == ANY else units.share(str(value), field)


def _show_permission(value: bool | float) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else units.percent(value)


def parsed(parse: Callable[[str], Any], metavar: str, *, several: bool = False) -> Kind:
    """Return the kind of a text that `parse` reads; its sentences name the flag by themselves.

    Args:
        parse: reads the text.
        metavar: what the help writes for a value.
        several: it may hold several with commas, so a file may have a list of texts.
    """

    def read(value: Any, field: str) -> Any:
        listed = several and isinstance(value, list)
        return parse(",".join(_texts(value, field)) if listed else _text(value, field))

    return Kind(read, metavar=metavar)


WHOLE = Kind(_whole, type=int, metavar="N")
NUMBER = Kind(_number, "{:g}".format, type=float, metavar="NUMBER")
TRUTH = Kind(_truth, lambda value: "yes" if value else "no", type=bool)
TEXT = Kind(_text, metavar="NAME")
FILE_TEXT = Kind(_file_text, metavar="FILE")  # a file's text, given by its path
SECONDS = Kind(
    lambda value, field: units.seconds(str(value), field), units.show_seconds, metavar="TIME"
)
PAUSE = Kind(  # one duration, or two: uniform between them
    lambda value, field: units.seconds_between(str(value), field),
    units.show_seconds_between,
    metavar="TIME[-TIME]",
)
LENGTHS = Kind(lambda value, field: units.lengths(str(value), field), metavar="LENGTHS")
PRICE = Kind(
    lambda value, field: units.price_per_h(str(value), field), "{:g}/h".format, metavar="PRICE/h"
)
SHARE = Kind(lambda value, field: units.share(str(value), field), units.percent, metavar="PERCENT")
ANY = "any"
# Whether something is allowed, or up to which share.
PERMISSION = Kind(_permission, _show_permission, bare=ANY, metavar="[=PERCENT]")
COUNTS = Kind(_counts, lambda value: ",".join(map(str, value)), metavar="N[,N...]")
RATES = Kind(_rates, lambda value: ",".join(f"{rate:g}" for rate in value), metavar="R[,R...]")
NAMES = Kind(_names, ",".join, metavar="NAME[,NAME...]")
ONE_OR_MORE = Kind(_one_or_more, metavar="NAME[,NAME...]")  # in a file a list, too
TEXTS = Kind(_texts, ", ".join, type=list[str])  # the flag may be repeated; a list in a file
COUNT_OR_AUTO = Kind(_count_or_auto, metavar="N|auto")
CONFIG = Kind(_config)
CONFIGS = Kind(_configs)
