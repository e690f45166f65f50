"""`dyno chat`: one conversation in the terminal, the smoke test of a server."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from llmdyno.cli import flags
from llmdyno.cli.options import ApiKeyEnv, AsJson, command, option
from llmdyno.cli.output import print_json, say
from llmdyno.machine.blas import import_numpy


@command(flags.server_flags())
def chat(
    given: flags.Given,
    system_prompt: Annotated[
        Path | None,
        option("--system-prompt", help="Text file that is put before it all.", metavar="FILE"),
    ] = None,
    max_tokens: Annotated[
        int | None, option("--max-tokens", help="Most tokens of an answer.", metavar="N", min=1)
    ] = None,
    api_key_env: ApiKeyEnv = None,
    json: AsJson = False,
) -> None:
    """Talk to a server, and see what each answer took; lines of a pipe are turns."""
    import asyncio

    from llmdyno.bench.chat import begin
    from llmdyno.errors import InterruptError, TargetError
    from llmdyno.flag import FILE_TEXT
    from llmdyno.load.plan import target_of
    from llmdyno.wire.connect import ConnectError

    before = "" if system_prompt is None else FILE_TEXT.read(str(system_prompt), "--system-prompt")
    import_numpy()
    spec = flags.bench_spec(given)
    flags.one_model(spec, "a conversation is with one model")
    target = target_of(spec, flags.secrets_of(spec, api_key_env))
    person = sys.stdin.isatty()
    turns: list[Any] = []
    with asyncio.Runner() as runner:
        try:
            talk = runner.run(
                begin(
                    target, spec.endpoint, spec.model, system_prompt=before, max_tokens=max_tokens
                )
            )
            say(f"{talk.endpoint.name}, model '{talk.model}'.")
            for prompt in _prompts(person):
                try:
                    turns.append(runner.run(talk.ask(prompt, _show)))
                except (TargetError, ConnectError) as error:
                    if not person:
                        raise TargetError(str(error)) from error
                    say(f"\n{error}")
                    continue
                _show("\n")
                say(_took(turns[-1]))
        except KeyboardInterrupt:
            raise InterruptError("interrupted.") from None
    if json:
        document = {"endpoint": talk.endpoint.name, "model": talk.model, "turns": turns}
        print_json(document)


def _prompts(person: bool) -> Iterator[str]:
    """Yield what is asked: lines that are not blank, up to the end of the input."""
    while True:
        if person:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _took(turn: Any) -> str:
    rate = "" if turn.token_rate is None else f", {turn.token_rate:,.1f} tok/s after the first"
    if turn.reads == 1 and turn.output_tokens > 1:
        rate = ", all at once"
    hidden = f", {turn.unstreamed:,} not streamed" if turn.unstreamed else ""
    asked = "" if turn.input_tokens is None else f"{turn.input_tokens} in, "
    return (
        f"[TTFT {turn.ttft_ms:,.0f} ms{rate}; tokens: {asked}{turn.output_tokens} out{hidden}"
        f" ({turn.source}); {turn.e2e_ms / 1e3:,.2f} s; {turn.finish or 'no finish reason'}]"
    )
