"""`dyno worker`: this machine measures trials of a study whose lead runs on another one."""

import os
import socket
from pathlib import Path
from typing import Annotated

from llmdyno.cli.options import command, option
from llmdyno.cli.output import say, terminate_as_interrupt

Store = Annotated[
    str,
    option(
        "--store",
        help="PostgreSQL where lead and workers of a study meet; the password comes from"
        " PGPASSWORD or PGPASSFILE.",
        metavar="postgresql+psycopg://USER@HOST/DATABASE",
    ),
]


@command()
def worker(
    url: Store,
    study: Annotated[
        str, option("--study", help="Name of the study, if several are at work.", metavar="NAME")
    ] = "",
    name: Annotated[
        str,
        option("--name", help="What this host is called, for its lead alone.", metavar="NAME"),
    ] = "",
) -> None:
    """Measure trials of a study over several hosts, until it has no more."""
    from llmdyno import store
    from llmdyno.tune.database import Database
    from llmdyno.tune.worker import work

    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    name = name or socket.gethostname() + (f" GPU {gpus}" if gpus else "")
    database = Database(url, notify=say)
    with terminate_as_interrupt(), store.temporary_folder("dyno-worker") as folder:
        work(database, Path(folder), study=study, name=name, say=say)
