"""`dyno`: its commands, and how every one of them ends.

A command is a function in the file of its group. It is imported when it is called, so that
`dyno --help` answers at once.
"""

import gc
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llmdyno import __version__
from llmdyno.cli.help import Command
from llmdyno.cli.output import flush_output, guard_streams, print_line, say
from llmdyno.errors import DynoError, InterruptError, UsageError, shortage

# The commands in the order of `dyno --help`: where each stands, and its line there.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "bench": ("bench:bench", "Put a server under load and measure it."),
    "chat": ("chat:chat", "Talk to a server, and see what each answer took."),
    "record": ("record:record", "Make a trace of live traffic, as a proxy."),
    "build": ("serve:build", "Build what an engine serves, or find it built already."),
    "serve": ("serve:serve", "Serve a model with an engine until it is told to stop."),
    "deploy": ("deploy:deploy", "Write what serves a config, or a study's winner, elsewhere."),
    "plan": ("plan:plan", "Predict what a server will do, without a GPU."),
    "tune": ("tune:tune", "Find better settings, and prove it."),
    "worker": ("worker:worker", "Measure trials of a study whose lead runs on another host."),
    "quality": ("quality:quality", "Compare what two servers answer, token by token."),
    "report": ("results:report", "Make summaries and reports again from what was measured."),
    "compare": ("compare:compare", "Compare runs, with intervals, and fail on what is worse."),
    "baseline": ("compare:baseline_app", "Keep runs under a name, to compare others with."),
    "export": (
        "results:export",
        "Write a run's requests as a table, or a study for Optuna.",
    ),
    "import": ("results:import_", "Take in another tool's result as a run."),
    "runs": ("runs:runs_app", "List, tag, compare, prune and export runs and studies."),
    "knobs": ("machine:knobs", "Explain the settings of an engine or a front."),
    "env": ("machine:env", "Describe this machine, and the engines on it."),
    "selftest": ("bench:selftest", "Measure this client itself: how exact, how fast."),
    "completion": ("completion:completion", "Teach a shell to complete commands and names."),
    "artifacts": ("serve:artifacts_app", "List what was built, or remove it."),
}

# Where a shell asks for the words that may end a line, this variable holds the line.
COMPLETING = "_DYNO_COMPLETE"

# What typer raises for a flag that it cannot read; it does not export it.
_FlagError: Any = typer.BadParameter.__base__


def load(name: str) -> Any:
    """Return a command of COMMANDS as typer makes it, with its flags; imports its group's file."""
    module, function = COMMANDS[name][0].split(":")
    found = getattr(importlib.import_module(f"llmdyno.cli.{module}"), function)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, cls=Command)(found)
        found = alone
    return typer.main.get_command(found)


class _Commands(TyperGroup):
    """The commands by their lines in the help; the one that is called is imported then."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        from llmdyno.cli.options import with_values  # imports msgspec, which a list does without

        name, command, rest = super().resolve_command(ctx, args)
        found = load(name) if name else command
        return name, found, with_values(rest, name or "")


app = typer.Typer(
    name="dyno",
    cls=_Commands,
    help="Build an LLM server, put it under load, tune it, and prove the difference.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Hold what comes before the command."""
    if version:
        print_line(__version__)
        raise typer.Exit


_OWN_FAULT = 70  # EX_SOFTWARE of sysexits.h; 1, as Python ends, would say that an SLO was missed

# Of what is imported nothing is garbage; looking for some costs a tenth of a start.
_COLLECTIONS = (50_000, 20, 100)


def main() -> None:
    """Run `dyno`; every fault of the world ends in one sentence and an exit status."""
    gc.set_threshold(*_COLLECTIONS)
    guard_streams()
    status = _ended(_complete if COMPLETING in os.environ else _run)
    # What a command that failed had printed before is no news; its own sentence is out.
    lost = _ended(flush_output)
    gc.freeze()  # or Python looks for garbage once more before it ends
    sys.exit(status or lost)


def _has_address(words: Sequence[str]) -> bool:
    """Tell whether a URL stands alone, without a flag before it."""
    pairs = zip(["", *words], words, strict=False)
    alone = (word for before, word in pairs if not before.startswith("-"))
    return any(re.match(r"(https?|grpc)://", word) for word in alone)


_SERVED = (  # what those ask for who have a server and would tune it
    ": a study starts servers of its own, with --engine and --model; a server that runs is measured"
    " with dyno bench --url"
)


def _elsewhere(flag: str, possibilities: Sequence[str] | None) -> str:
    """Return which commands have a flag that the one which was called has not; empty: none."""
    words = [word for word in sys.argv[1:] if word in COMMANDS]
    if flag == "--url" and words[:1] == ["tune"]:
        return _SERVED
    if any(flag in one for one in possibilities or ()):  # the beginning of one of its own
        return ""
    have = [name for name in COMMANDS if any(flag in one.opts for one in load(name).params)]
    return f"; it is a flag of dyno {', dyno '.join(have[:3])}" if have else ""


def _complete() -> None:
    from llmdyno.cli.completion import Commands, answer

    lines = {name: line for name, (_, line) in COMMANDS.items()}
    answer(os.environ[COMPLETING], Commands(lines, load))


def _refuse_no_text(words: Sequence[str]) -> None:
    """Refuse words that no file of ours can hold: their bytes are not of this system's encoding."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            readable = os.fsencode(word).decode("ascii", "backslashreplace")
            raise UsageError(
                f"{readable}: is no {sys.getfilesystemencoding()}, which the locale of this"
                " terminal says; write it so, or set a locale that has it, e.g. LC_ALL=C.UTF-8."
            ) from None


def _run() -> int:
    _refuse_no_text(sys.argv[1:])
    ended = app(prog_name="dyno", standalone_mode=False)
    if ended == InterruptError.exit_status:  # what typer makes of Ctrl-C
        say("dyno: interrupted.")
    return ended if isinstance(ended, int) else 0


def _ended(part: Callable[[], int | None]) -> int:
    """Run a part of `dyno`; return the exit status, and say the sentence of what went wrong."""
    try:
        return part() or 0
    except _FlagError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no command at all: it carries the help
            error.show()
        else:
            command = error.ctx.command_path if error.ctx else "dyno"
            what = error.format_message().strip().rstrip(".")
            missing = type(error).__name__ == "MissingParameter" and "--url" in what
            if missing and _has_address(sys.argv[1:]):
                what = "The server's address is a flag: write --url before it"
            elif type(error).__name__ == "NoSuchOption":
                known = _elsewhere(error.option_name, error.possibilities)
                what = f"No such option: {error.option_name}{known}" if known else what
            say(f"dyno: {what}; `{command} --help` says what there is.")
        return UsageError.exit_status
    except DynoError as error:
        say(f"dyno: {error}")
        return error.exit_status
    except Exception as error:  # noqa: BLE001  whatever is left is our own fault
        if (lacks := shortage(error)) is not None:
            say(f"dyno: there is no {lacks} left for dyno itself; what was written is kept.")
            return DynoError.exit_status
        import traceback  # seldom needed

        traceback.print_exc()
        say("dyno: a fault of dyno itself, which the lines above show; what was written is kept.")
        return _OWN_FAULT
