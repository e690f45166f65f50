"""`dyno quality`: whether two servers give the same answers, beside how far one repeats itself."""

from collections.abc import Mapping
from typing import Annotated, Any

from llmdyno.cli import flags
from llmdyno.cli.options import ApiKeyEnv, AsJson, Text, command, option
from llmdyno.cli.output import print_json, print_line, say
from llmdyno.errors import UsageError
from llmdyno.machine.blas import import_numpy


@command(flags.server_flags())
def quality(
    given: flags.Given,
    against: Annotated[
        Text,
        option(
            "--against",
            help="The other server; gets the same headers. [none: how far one repeats itself]",
            metavar="URL",
        ),
    ] = None,
    tokens: Annotated[
        int, option("--tokens", help="Most tokens of an answer.", metavar="N", min=1)
    ] = 48,
    concurrency: Annotated[
        int,
        option(
            "-c",
            "--concurrency",
            help="Requests at once in the pass under load.",
            metavar="N",
            min=1,
        ),
    ] = 8,
    fail_above: Annotated[
        Text,
        option(
            "--fail-above",
            help="End with status 1 if more tokens differ beyond the baseline's own noise.",
            metavar="SHARE",
        ),
    ] = None,
    api_key_env: ApiKeyEnv = None,
    json: AsJson = False,
) -> None:
    """Ask two servers the same prompts, greedily, and say how far their tokens agree."""
    import_numpy()
    import asyncio

    import msgspec
    import typer

    from llmdyno import endpoints, units
    from llmdyno.errors import InterruptError
    from llmdyno.load.plan import target_of
    from llmdyno.quality.answers import Answers
    from llmdyno.quality.asks import ask_server
    from llmdyno.quality.gate import admits, judge
    from llmdyno.results.quality import sentences

    limit = None if fail_above is None else units.share(fail_above, "--fail-above")
    if limit is not None and against is None:
        raise UsageError("--fail-above: compares two servers; name the other one with --against.")
    spec = flags.bench_spec(given)
    flags.one_model(spec, "each server is asked for one model")
    secrets = flags.secrets_of(spec, api_key_env)
    targets = [target_of(spec, secrets)]
    if against is not None:
        other = endpoints.full_url(spec.endpoint, against)
        targets.append(target_of(msgspec.structs.replace(spec, url=other), secrets))

    async def ask_all() -> list[Answers]:
        found = []
        for number, target in enumerate(targets):
            say(f"{target.authority}:")
            found.append(
                await ask_server(
                    target,
                    endpoint=spec.endpoint,
                    model=spec.model,
                    tokens_max=tokens,
                    concurrency=concurrency,
                    again=number == 0,
                    notify=lambda line: say(f"  {line}"),
                )
            )
        return found

    try:
        answers = asyncio.run(ask_all())
    except KeyboardInterrupt:
        raise InterruptError("interrupted.") from None
    document = judge(answers[0], answers[1] if against is not None else None)
    for line in sentences(document) or _alone(document):
        say(line)
    if json:
        print_json(document)
    else:
        print_line(document["verdict"] or "not compared")
    if not admits(document, limit):
        raise typer.Exit(1)


def _alone(document: Mapping[str, Any]) -> list[str]:
    """Say how far one server repeats itself."""
    names = {"again": "asked again", "loaded": f"with {document['concurrency']} requests at once"}
    return [
        f"The server against itself, {name}: {100 * one['same_answers']['mean']:.3g} % of"
        f" {one['prompts']} answers are equal; {100 * one['disagreement']['mean']:.3g} % of the"
        f" {one['unit']} differ where the text before them is the same."
        for key, name in names.items()
        if (one := document["yardstick"][key])
    ]
