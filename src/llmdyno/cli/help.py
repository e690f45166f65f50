"""How a command's help stands on the terminal: its usage, and its flags under headings."""

from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

REST = "Options"
_FEW = 20  # flags: so many are read as one list


class Command(TyperCommand):
    """A command whose help has headings, in the order of their first flags."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002  # as typer calls it
        """Return the words of the usage: an argument that may be left out is in brackets."""
        return ["[OPTIONS]", *(_usage(one) for one in self.params if _is_argument(one))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the flags, each heading with its own."""
        rows = [
            (argument_name(one), getattr(one, "help", None) or "")
            for one in self.params
            if _is_argument(one)
        ]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        for heading, flags in headed(self.get_params(ctx)):
            with formatter.section(heading):
                formatter.write_dl([one.get_help_record(ctx) for one in flags])


def headed(parameters: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each heading with its flags; those that have none come last."""
    flags = [one for one in parameters if not _is_argument(one)]
    if len(flags) <= _FEW:
        yield REST, flags
        return
    found: dict[str, list[Any]] = {}
    for one in flags:
        found.setdefault(getattr(one, "rich_help_panel", None) or REST, []).append(one)
    rest = found.pop(REST, [])
    yield from found.items()
    if rest:
        yield REST, rest


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def argument_name(parameter: Any) -> str:
    """Return an argument's name as the help has it."""
    return str(parameter.metavar or parameter.name.upper())


def _usage(parameter: Any) -> str:
    name = argument_name(parameter)
    several = f"{name}..." if parameter.nargs != 1 else name
    return several if parameter.required else f"[{several}]"
