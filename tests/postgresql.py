"""A PostgreSQL of the tests' own, on a socket in a folder; it may be stopped and started."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from llmdyno.tune.database import Database

_PLACES = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
_USER = "postgres"  # the server refuses to run as root


def program(name: str) -> str | None:
    """Return where a program of PostgreSQL's server is; None: it is not installed."""
    return shutil.which(name, path=os.pathsep.join([*_PLACES, os.environ.get("PATH", "")]))


class Server:
    """One server, with an empty database called team."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            shutil.chown(folder, _USER, _USER)
        self._run(
            "initdb",
            "-D",
            str(folder / "data"),
            "-A",
            "trust",
            "-U",
            "me",
            "-E",
            "UTF8",
            "--no-sync",
        )
        self.start()
        self._run("createdb", "-h", str(folder), "-U", "me", "team")

    @property
    def url(self) -> str:
        """The database as SQLAlchemy has it."""
        return f"postgresql+psycopg://me@/team?host={self.folder}"

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self._control("-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """Cut every connection at once."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), *words)

    def _run(self, name: str, *words: str) -> None:
        as_user: dict[str, Any] = {"user": _USER} if os.getuid() == 0 else {}
        subprocess.run(
            [str(program(name)), *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
            **as_user,
        )


@contextmanager
def started() -> Iterator[Server]:
    """Start a server for the `with`; skip the test where there is none, or no driver."""
    pytest.importorskip("psycopg", reason="psycopg is missing: pip install -e '.[postgresql]'")
    if program("initdb") is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    with TemporaryDirectory(prefix="pg") as place:  # short: it holds a socket
        Path(place).chmod(0o755)
        server = Server(Path(place, "s"))
        try:
            yield server
        finally:
            server.stop()


def forget_studies(server: Server) -> None:
    """Take all studies of a team out of a server's database, for the next test."""
    database = Database(server.url)
    database.make_tables()
    database.ask("DELETE FROM dyno_studies")
    database.close()
