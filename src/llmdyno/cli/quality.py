"""`dyno quality`: whether two servers give the same answers, beside how far one repeats itself."""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from llmdyno.cli.options import ApiKeyEnv, AsJson, CaCert, Insecure, Text, command, option
from llmdyno.cli.output import import_numpy, print_json, print_line, say
from llmdyno.errors import UsageError
from llmdyno.wire import headers
from llmdyno.wire.target import Target, parse_url


@command()
def quality(
    url: Annotated[str, option("--url", help="Base URL of the baseline's server.")],
    against: Annotated[
        Text,
        option(
            "--against", help="Base URL of the other server. [none: how far one repeats itself]"
        ),
    ] = None,
    endpoint: Annotated[
        str, option("--endpoint", help="Wire protocol, or auto, which asks the server.")
    ] = "auto",
    model: Annotated[
        str, option("-m", "--model", help="Name of the model; else the first that is listed.")
    ] = "",
    tokens: Annotated[int, option("--tokens", help="Most tokens of an answer.", min=1)] = 48,
    concurrency: Annotated[
        int, option("-c", "--concurrency", help="Requests at once in the pass under load.", min=1)
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
    ca_cert: CaCert = None,
    insecure: Insecure = False,
    json: AsJson = False,
) -> None:
    """Ask two servers the same prompts, greedily, and say how far their tokens agree."""
    import_numpy()
    import asyncio

    import typer

    from llmdyno import units
    from llmdyno.errors import InterruptError
    from llmdyno.quality.answers import Answers
    from llmdyno.quality.asks import ask_server
    from llmdyno.quality.gate import admits, judge
    from llmdyno.results.quality import sentences

    limit = None if fail_above is None else units.share(fail_above, "--fail-above")
    if limit is not None and against is None:
        raise UsageError("--fail-above: compares two servers; name the other one with --against.")
    targets = _targets(
        [one for one in (url, against) if one is not None],
        endpoint,
        api_key_env,
        ca_cert=ca_cert,
        insecure=insecure,
    )

    async def ask_all() -> list[Answers]:
        found = []
        for number, target in enumerate(targets):
            say(f"{target.authority}:")
            found.append(
                await ask_server(
                    target,
                    endpoint=endpoint,
                    model=model,
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


def _targets(
    urls: Sequence[str],
    endpoint: str,
    api_key_env: str | None,
    *,
    ca_cert: str | None,
    insecure: bool,
) -> list[Target]:
    from llmdyno import endpoints

    if endpoint != endpoints.AUTO:
        endpoints.load(endpoint)
        urls = [endpoints.full_url(endpoint, url) for url in urls]
    secrets = headers.from_variables((), "", api_key_env, os.environ)
    return [
        parse_url(url, more_headers=secrets, ca_cert=ca_cert, insecure=insecure) for url in urls
    ]


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
