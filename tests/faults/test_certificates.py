"""Certificates that are out of date, before a run and in the middle of one."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from faults.test_connections import WHOLE, by_name, server_context
from harness import whole
from llmdyno.processes.ports import free_port
from scripted_server import Client, scripted

Dyno = Callable[..., subprocess.CompletedProcess[str]]
_AUTHORITY = """
[ca]
default_ca = own
[own]
database = {0}/index.txt
new_certs_dir = {0}
default_md = sha256
policy = names
x509_extensions = more
rand_serial = yes
[names]
commonName = supplied
[more]
basicConstraints = CA:TRUE
subjectAltName = DNS:localhost
"""


class Certificate(NamedTuple):
    """What a server shows, and the file to trust, so that only its dates can be wrong."""

    context: ssl.SSLContext
    trusted: Path


class Issuer:
    """Signs certificates for localhost that are valid between any two days."""

    def __init__(self, folder: Path, key: Path) -> None:
        self._folder, self._key = folder, key
        (folder / "index.txt").write_text("")
        (folder / "index.txt.attr").write_text("unique_subject = no\n")
        (folder / "ca.cnf").write_text(_AUTHORITY.format(folder))
        self._run(
            *("req", "-new", "-key", str(key), "-subj", "/CN=localhost"),
            *("-out", str(folder / "asked.csr")),
        )

    def issue(self, name: str, first: int, last: int) -> Certificate:
        """Sign one; the days count from today."""
        path = self._folder / f"{name}.crt"
        self._run(
            *("ca", "-batch", "-selfsign", "-config", str(self._folder / "ca.cnf")),
            *("-keyfile", str(self._key), "-in", str(self._folder / "asked.csr"), "-notext"),
            *(
                "-subj",
                f"/CN={name}",
                "-startdate",
                _day(first),
                "-enddate",
                _day(last),
                "-out",
                str(path),
            ),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, self._key)
        return Certificate(context, path)

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)


def _day(from_today: int) -> str:
    return f"{datetime.now(UTC) + timedelta(days=from_today):%Y%m%d%H%M%SZ}"


@pytest.fixture
def issuer(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"), certificate)


@pytest.mark.parametrize(
    ("days", "said", "help_"),
    [
        ((-9, -1), "certificate has expired", "the server needs a new one"),
        ((1, 9), "certificate is not yet valid", "set the clock"),
    ],
)
def test_one_that_is_out_of_date_is_one_sentence_before_the_load(
    dyno: Dyno, issuer: Issuer, tmp_path: Path, days: tuple[int, int], said: str, help_: str
) -> None:
    shown = issuer.issue("shown", *days)

    async def main() -> list[subprocess.CompletedProcess[str]]:
        async with scripted(WHOLE, tls=shown.context) as url:
            asked = (
                *("bench", "--url", by_name(url), "--endpoint", "openai-chat", "--model", "m"),
                *("-c", "1", "--requests", "2", "--no-scrape"),
            )
            trusting = (*asked, "--ca-cert", str(shown.trusted))
            found = [await asyncio.to_thread(dyno, *trusting)]
            anyway = (*asked, "--insecure", "--no-calibration", "--out", "anyway")
            return [*found, await asyncio.to_thread(dyno, *anyway)]

    refused, anyway = asyncio.run(main())

    assert refused.returncode == 3
    (line,) = refused.stderr.splitlines()
    assert f": {said}; {help_}" in line
    assert "--ca-cert" not in line  # it would not help
    assert anyway.returncode == 0, anyway.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["anyway"]


def test_one_for_another_host_is_one_sentence_before_the_load(
    dyno: Dyno, certificate: Path, tmp_path: Path
) -> None:
    async def main() -> subprocess.CompletedProcess[str]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            trusted = str(certificate.with_suffix(".crt"))
            return await asyncio.to_thread(dyno, "bench", "--url", url, "--ca-cert", trusted)

    done = asyncio.run(main())

    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "give a host that it names in --url" in line
    assert not list(tmp_path.iterdir())


def test_a_server_that_comes_back_with_an_expired_one_is_named_in_the_run(
    dyno: Dyno, issuer: Issuer, tmp_path: Path
) -> None:
    good, expired = issuer.issue("good", -1, 9), issuer.issue("expired", -9, -1)
    both = tmp_path / "both.crt"
    both.write_bytes(good.trusted.read_bytes() + expired.trusted.read_bytes())
    port = free_port()

    measured = 0
    has_measured = asyncio.Event()

    async def answer_once(client: Client) -> None:
        nonlocal measured
        await client.request()
        await whole("openai-chat")(client)
        measured += 1
        if measured == 10:  # some more than are asked before the level begins
            has_measured.set()
        client.reset()  # what is connected would stay so: a certificate is shown at the start

    async def serve() -> None:
        async with scripted(answer_once, port=port, tls=good.context):
            await has_measured.wait()
        async with scripted(WHOLE, port=port, tls=expired.context):
            await asyncio.sleep(60)

    async def main() -> subprocess.CompletedProcess[str]:
        server = asyncio.create_task(serve())
        done = await asyncio.to_thread(
            dyno,
            *("bench", "--url", f"https://localhost:{port}", "--ca-cert", str(both)),
            *("--endpoint", "openai-chat", "--model", "m", "-c", "2", "--duration", "60s"),
            *("--ramp", "0s", "--think-time", "20ms", "--no-scrape", "--no-calibration"),
            *("--max-errors", "5", "--out", "run"),
        )
        server.cancel()
        return done

    done = asyncio.run(main())

    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    (level,) = json.loads((tmp_path / "run" / "summary.json").read_text())["levels"]
    assert level["requests"]["completed"] > 0
    assert level["requests"]["errors"]["tls-certificate"] > 0
    assert (
        "certificate has expired; the server needs a new one"
        in (tmp_path / "run" / "journal.jsonl").read_text()
    )
    assert "the server's certificate is untrusted, has expired" in done.stdout + done.stderr
