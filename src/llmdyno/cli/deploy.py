"""`dyno deploy`: what serves a config, or a study's winner, elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from llmdyno.cli.flags import Given, study_spec
from llmdyno.cli.options import AsJson, Port, Sets, Text, command, option
from llmdyno.cli.output import print_json, print_line, say
from llmdyno.cli.serve import checked_stack, stack_flags
from llmdyno.errors import UsageError


@command(stack_flags("engine", "front", "model", "engine_arg"))
def deploy(
    given: Given,
    settings: Sets = None,
    study: Annotated[
        Text, option("--study", help="Deploy the winner of this study.", metavar="STUDY")
    ] = None,
    target: Annotated[
        str,
        option(
            "--target",
            help="Files to write: script, compose, kubernetes, triton, bento, all.",
            metavar="NAME",
        ),
    ] = "all",
    port: Port = 8000,
    image: Annotated[
        str, option("--image", help="Container image. [the engine's]", metavar="IMAGE")
    ] = "",
    out: Annotated[str, option("--out", help="Folder of the bundle.", metavar="DIR")] = "bundle",
    json: AsJson = False,
) -> None:
    """Write what serves a config elsewhere: script, compose file, Kubernetes manifests."""
    from llmdyno import deploy as bundle
    from llmdyno import store

    if not out:
        raise UsageError("--out: is empty; name a folder.")
    folder = Path(out)
    store.check_folder(folder)

    if study is None:
        if not (given or settings):
            raise UsageError(
                "say what is deployed: --study STUDY, its winner; or --engine and --model."
            )
        document = None
        stack, config = checked_stack(study_spec(given), settings)
    else:
        stack, config, document = _winner(study, alone=not (given or settings))
    files = bundle.write(
        folder,
        stack,
        config,
        target=target,
        port=port,
        image=image,
        study=document,
        notify=say,
    )
    if json:
        print_json({"bundle": str(folder), "files": files})
    else:
        print_line(str(folder))


def _winner(name: str, *, alone: bool) -> tuple[Any, Any, Mapping[str, Any]]:
    """Return what won a study, its config and the study's document.

    Raises:
        UsageError: there is no such study, it has no winner yet, or it does not stand alone: a
            study says by itself what was served.
    """
    from llmdyno import store
    from llmdyno.tune import commands
    from llmdyno.tune.combined_study import document_of
    from llmdyno.tune.folder import open_study
    from llmdyno.tune.ledger import Ledger

    if not alone:
        raise UsageError(
            f"--study {name}: says engine, front, model and settings; leave out --engine, --front,"
            " --model, --engine-arg and --set."
        )
    folder = store.find(name)
    open_study(folder)  # refuses a folder that holds none
    document, stack = document_of(folder, Ledger(folder))
    if document["best"] is None:
        raise UsageError(
            f"--study {name}: nothing was measured yet; go on with: {commands.resume(folder)}"
        )
    config = document["best"]["config"]
    stack.check(config)
    return stack, config, document
