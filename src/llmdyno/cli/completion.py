"""`dyno completion`: the script with which bash, zsh or fish completes `dyno`, and its answers.

The shell starts `dyno` at each TAB, with the line up to the cursor in _DYNO_COMPLETE. The answer is
a line for each word that may stand there, with its help after a tab; without any answer the shell
completes names of files. A word that ends with "=" or "," wants to be gone on with.
"""

import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from llmdyno import plugins
from llmdyno.cli.options import command
from llmdyno.cli.output import print_line
from llmdyno.errors import UsageError, nearest

# Characters: a word and its help fit a terminal of 80 columns, unless the word is too long.
_LINE, _HELP_MIN = 76, 24

_BASH = r"""# bash completion of dyno; it needs nothing but bash 4.4 or newer.
_dyno() {
    local line=${COMP_LINE:0:COMP_POINT} word found kept
    word=${line##*[[:space:]]}
    # Readline replaces only what stands behind the last of these.
    kept=${word%"${word##*[$COMP_WORDBREAKS]}"}
    [[ $word == *[=:]* ]] || kept=
    COMPREPLY=()
    while IFS=$'\t' read -r found _; do
        [[ $found == *[=,] ]] && compopt -o nospace
        COMPREPLY+=("${found#"$kept"}")
    done < <(_DYNO_COMPLETE="$line" "$1" 2>/dev/null)
}
complete -o bashdefault -o default -F _dyno dyno
"""

_ZSH = r"""#compdef dyno
# zsh completion of dyno; in a file _dyno on the fpath, or sourced after compinit.
_dyno() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX" answer word
    local -a whole begun told_whole told_begun
    for answer in "${(@f)$(_DYNO_COMPLETE="$line" $words[1] 2>/dev/null)}"; do
        word=${answer%%$'\t'*}
        [[ -n $word ]] || continue
        if [[ $word == *[=,] ]]; then
            begun+=("$word") told_begun+=("${answer//$'\t'/  }")
        else
            whole+=("$word") told_whole+=("${answer//$'\t'/  }")
        fi
    done
    (( $#whole + $#begun )) || { _files; return }
    (( $#whole )) && compadd -l -d told_whole -a whole
    (( $#begun )) && compadd -S '' -l -d told_begun -a begun
    return 0
}
if [[ $funcstack[1] == _dyno ]]; then _dyno "$@"; else compdef _dyno dyno; fi
"""

_FISH = r"""# fish completion of dyno.
function __dyno_complete
    set -l line (commandline -cp)
    set -l found (env _DYNO_COMPLETE="$line" dyno 2>/dev/null)
    if test (count $found) -gt 0
        string join \n -- $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command dyno --no-files --arguments '(__dyno_complete)'
"""


class Shell(NamedTuple):
    """A shell that can be taught to complete `dyno`."""

    script: str
    home: str  # where `--install` puts it, below the user's home
    then: str  # what remains to be done after that; empty: nothing


SHELLS: Mapping[str, Shell] = {
    "bash": Shell(
        _BASH,
        ".local/share/bash-completion/completions/dyno",
        "New shells have it where the package bash-completion is installed;"
        " elsewhere ~/.bashrc needs the line: source {path}",
    ),
    "zsh": Shell(
        _ZSH,
        ".zfunc/_dyno",
        "If it is not there yet, ~/.zshrc needs the line:"
        " fpath+=(~/.zfunc); autoload -Uz compinit; compinit",
    ),
    "fish": Shell(_FISH, ".config/fish/completions/dyno.fish", ""),
}


@command()
def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.", metavar="SHELL")],
    install: Annotated[
        bool,
        typer.Option(
            "--install", help="Write it to where the shell looks for it.", show_default=False
        ),
    ] = False,
) -> None:
    """Print what makes a shell complete commands, flags, knobs and names."""
    from llmdyno import store

    if shell not in SHELLS:
        raise UsageError(f"dyno completion {shell}: no such shell.{nearest(shell, SHELLS)}")
    known = SHELLS[shell]
    if not install:
        print_line(known.script.rstrip())
        return
    path = store.home() / known.home
    store.make_folder(path.parent)
    store.write_atomically(path, known.script.encode())
    print_line(str(path))
    if known.then:
        from llmdyno.cli.output import say

        say(known.then.format(path=path))


class Word(NamedTuple):
    """Something that may stand where the cursor is."""

    text: str
    help: str = ""


_HELP = Word("--help", "Show what there is.")
Given = Mapping[str, str]  # the flags that were given, by their first name
Source = Callable[[str, Given], Iterator[Word]]  # of the word so far and the flags


class Commands(NamedTuple):
    """What `dyno` can be told to do."""

    lines: Mapping[str, str]  # of the help, by the commands' names
    load: Callable[[str], Any]  # returns one as typer makes it


def answer(line: str, commands: Commands) -> None:
    """Print the words that may stand at the end of a command line that is being typed."""
    with suppress(UsageError):  # an engine that there is not has no knobs
        for word in complete(line, commands):
            room = max(_HELP_MIN, _LINE - len(word.text))
            said = textwrap.shorten(word.help, room, placeholder=" ...")
            print_line(f"{word.text}\t{said}" if said else word.text)


def complete(line: str, commands: Commands) -> list[Word]:
    """Return the words that may stand at the end of a command line: `dyno tune --engine vl`."""
    *before, last = _split(line)
    found = list(_words(before[1:], last, commands))
    return [word for word in found if word.text.startswith(last)]


def _split(line: str) -> list[str]:
    """Split a line as a shell does; the last word may be empty, or lack its closing quote."""
    for closing in ("", "'", '"'):
        with suppress(ValueError):
            words = shlex.split(line + closing)
            return [*words, ""] if not closing and (not line or line[-1].isspace()) else words
    return [line]


def _words(before: Sequence[str], last: str, commands: Commands) -> Iterator[Word]:
    """Yield what may stand after these words of a command line, whether it fits `last` or not."""
    before = [word for word in before if word != "--version"]
    if not before:
        yield from (Word(name, line) for name, line in commands.lines.items())
        yield from (_HELP, Word("--version", "Print the version."))
        return
    name, *rest = before
    if name not in commands.lines:
        return
    group = commands.load(name)
    while hasattr(group, "commands"):
        if not rest and not last.startswith("-"):
            yield from (Word(sub, inner.help or "") for sub, inner in group.commands.items())
            return
        if not rest or rest[0].startswith("-"):
            break  # a flag of the group itself
        inner, *rest = rest
        if inner not in group.commands:
            return
        group, name = group.commands[inner], f"{name} {inner}"
    yield from _of_command(name, group.params, rest, last)


def _of_command(
    name: str, parameters: Sequence[Any], before: Sequence[str], last: str
) -> Iterator[Word]:
    """Yield what may stand in a command: flags, the values of one, or of an argument."""
    flags = {
        flag: one
        for one in parameters
        if one.param_type_name == "option"
        for flag in (*one.opts, *one.secondary_opts)
    }
    given: dict[str, str] = {}
    arguments, wants = 0, None  # the flag that the next word is the value of
    for word in before:
        flag, equals, value = word.partition("=")
        if wants is not None:
            given[_name(wants)], wants = word, None
        elif flag in flags and equals:
            given[_name(flags[flag])] = value
        elif word in flags:
            wants = None if flags[word].is_flag else flags[word]
        elif not word.startswith("-"):
            arguments += 1
    flag, equals, value = last.partition("=")
    if wants is not None:
        yield from _values(_name(wants), last, given)
    elif equals and flag in flags:
        for one in _values(_name(flags[flag]), value, given):
            yield Word(f"{flag}={one.text}", one.help)
    elif last.startswith("-"):
        yield from (Word(flag, one.help or "") for flag, one in flags.items())
        yield _HELP
    else:
        places = [one for one in parameters if one.param_type_name == "argument"]
        place = places[min(arguments, len(places) - 1)] if places else None
        if place is not None and (arguments < len(places) or place.nargs == -1):
            positional = next((word for word in before if not word.startswith("-")), "")
            asked = {**given, "--engine": positional} if name == "knobs" else given
            yield from _values(f"{name} {place.name}", last, asked)


def _name(parameter: Any) -> str:
    """Return the name by which a flag is looked up: its first long one."""
    names: list[str] = parameter.opts
    return next((one for one in names if one.startswith("--")), names[0])


def _values(name: str, last: str, given: Given) -> Iterator[Word]:
    source = _sources().get(name)
    return iter(()) if source is None else source(last, given)


def _sources() -> dict[str, Source]:
    """Return what completes the value of each flag, and of the arguments: "knobs engine"."""
    from llmdyno.cli.flags import bench_flags, study_flags
    from llmdyno.flag import ONE_OR_MORE
    from llmdyno.search.samplers import SAMPLERS
    from llmdyno.spec import ARRIVALS

    found: dict[str, Source] = {}
    for field in (*study_flags(), *bench_flags()):
        if field.flag.plugins:
            several = field.flag.kind is ONE_OR_MORE
            found[field.option] = _listed(_plugins(field.flag.plugins), several=several)
    runs, studies = _folders("runs"), _folders("studies")

    def both(last: str, given: Given) -> Iterator[Word]:
        yield from runs(last, given)
        yield from studies(last, given)

    def servers(last: str, given: Given) -> Iterator[Word]:
        yield from _plugins("engines")(last, given)
        yield from _plugins("fronts")(last, given)

    def endpoints(last: str, given: Given) -> Iterator[Word]:
        yield Word("auto")
        yield from _plugins("endpoints")(last, given)

    containers = _texts("none", "auto", "docker", "podman", "apptainer")
    return found | {
        "--endpoint": endpoints,
        "--arrival": _texts(*ARRIVALS),
        "--sampler": _texts(*SAMPLERS),
        "--set": _settings,
        "--search": _listed(_knobs, several=True),
        "--objective": _metrics,
        "--slo": _metrics,
        "--from": _plugins("importers"),
        "--container": containers,
        "--resume": studies,
        "--study": studies,
        "--learn-from": studies,
        "knobs engine": servers,
        "knobs knob": _knobs,
        "report names": both,
        "compare names": both,
        "export name": both,
        "runs tag run": both,
        "completion shell": _texts(*SHELLS),
    }


def _texts(*texts: str) -> Source:
    return lambda _last, _given: (Word(text) for text in texts)


def _plugins(kind: str) -> Source:
    return lambda _last, _given: (Word(name) for name in plugins.names(kind))


def _listed(source: Source, *, several: bool) -> Source:
    """Complete the last of several names with commas between them; those before are not again."""
    if not several:
        return source

    def completed(last: str, given: Given) -> Iterator[Word]:
        *earlier, _ = last.split(",")
        head = "".join(f"{one}," for one in earlier)
        for word in source("", given):
            if word.text not in earlier:
                yield Word(head + word.text, word.help)

    return completed


# By which a folder is that of a run, or of a study; others write a summary.json, too.
_MARKERS = {"runs": "journal.jsonl", "studies": "ledger.jsonl"}


def _folders(parent: str) -> Source:
    """Complete the runs or the studies of this folder: ids, the newest first, and --out's names."""

    def completed(_last: str, _given: Given) -> Iterator[Word]:
        there = Path(parent)
        names = [one.name for one in there.iterdir() if one.is_dir()] if there.is_dir() else []
        named = {file.parent.name for file in Path().glob(f"*/{_MARKERS[parent]}")}
        return (Word(name) for name in [*sorted(names, reverse=True), *sorted(named)])

    return completed


def _named(given: Given) -> Iterator[tuple[str, str]]:
    """Yield the plug-ins that the line names, or those that a study has by default: kind, name."""
    from llmdyno.tune.spec import Study

    usual, fronts = Study(), plugins.names("fronts")
    for flag, default in (("--engine", usual.engine), ("--front", usual.front)):
        for name in (given.get(flag) or default).split(","):
            if name:
                yield ("fronts" if name in fronts else "engines"), name


def _knobs(_last: str, given: Given) -> Iterator[Word]:
    """Complete the knobs of the engines and fronts that the line names, with what each does."""
    seen: set[str] = set()
    for kind, name in _named(given):
        for knob in plugins.load(kind, name).knobs:
            if knob.name not in seen:
                seen.add(knob.name)
                yield Word(knob.name, knob.does)


def _settings(last: str, given: Given) -> Iterator[Word]:
    """Complete `knob=`, and behind that what the knob may be, where this can be listed."""
    name, equals, _ = last.partition("=")
    if not equals:
        yield from (Word(f"{word.text}=", word.help) for word in _knobs(last, given))
        return
    from llmdyno.knobs import show

    for kind, plugin in _named(given):
        for knob in plugins.load(kind, plugin).knobs:
            if knob.name == name:
                listed = (True, False) if knob.kind == "bool" else knob.choices
                yield from (Word(f"{name}={show(value)}") for value in listed)


def _metrics(_last: str, _given: Given) -> Iterator[Word]:
    from llmdyno.results.metrics import BY_NAME

    for row in BY_NAME.values():
        if row.rate is not None:
            yield Word(row.flag, row.title)
        else:
            yield from (Word(f"{row.flag}:{one}", row.title) for one in row.statistics)
