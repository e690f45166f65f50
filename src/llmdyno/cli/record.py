"""`dyno record`: a proxy that makes a trace of live traffic."""

import os
from pathlib import Path
from typing import Annotated

from llmdyno.cli.options import AsJson, CaCert, Insecure, command, option
from llmdyno.cli.output import print_json, say
from llmdyno.wire import headers


@command()
def record(
    url: Annotated[str, option("--url", help="Base URL of the server.", metavar="URL")],
    out: Annotated[
        Path, option("--out", help="File of the trace, a line for each request.", metavar="FILE")
    ],
    listen: Annotated[
        str, option("--listen", help="Where clients connect.", metavar="HOST:PORT")
    ] = "127.0.0.1:9000",
    keep_text: Annotated[
        bool, option("--keep-text", help="Also write what was asked and answered.")
    ] = False,
    tokenizer: Annotated[
        str,
        option(
            "--tokenizer",
            help="tokenizer.json or its folder, for answers whose tokens the server does not tell.",
            metavar="FILE",
        ),
    ] = "",
    hash_key: Annotated[
        str,
        option(
            "--hash-key",
            help="Key of the hashes, to compare several traces; else each has a random one.",
            metavar="TEXT",
        ),
    ] = "",
    api_key_env: Annotated[
        str | None,
        option(
            "--api-key-env",
            help="Environment variable that holds an API key for requests that bring none."
            f" [{headers.API_KEY_VARIABLE}]",
            metavar="VARIABLE",
        ),
    ] = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
    json: AsJson = False,
) -> None:
    """Pass live traffic through to a server, and record it as a trace to replay."""
    import uvloop

    from llmdyno.errors import UsageError
    from llmdyno.record import proxy
    from llmdyno.wire.target import parse_url

    host, port = proxy.listen_address(listen)
    secrets = headers.from_variables((), "", api_key_env, os.environ)
    target = parse_url(url, more_headers=secrets, ca_cert=ca_cert, insecure=insecure)
    if target.rpc:
        raise UsageError(f"--url {url}: must be http:// or https://; gRPC cannot be recorded.")
    proxy.check_hash_key(hash_key)
    if tokenizer:
        from llmdyno.bench.recount import LocalTokenizer

        LocalTokenizer(tokenizer)  # refuses a file that is none, before anything is written
    proxy.check_out(out)
    asked = proxy.Recording(
        host=host,
        port=port,
        target=target,
        out=out,
        keep_text=keep_text,
        hash_key=hash_key,
        tokenizer=tokenizer,
    )
    written = uvloop.run(proxy.record(asked, say))
    failed = f", {written.failed} of them failed" if written.failed else ""
    requests = "request" if written.requests == 1 else "requests"
    say(f"{written.requests} {requests} recorded{failed}: {out}")
    if json:
        print_json({"out": str(out), "requests": written.requests, "failed": written.failed})
