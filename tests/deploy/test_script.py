"""serve.sh; run by a shell, with programs that say what they were given."""

import os
import subprocess
from pathlib import Path
from typing import Any

from deploy_plans import plan
from llmdyno.deploy import script
from llmdyno.deploy.plan import HOST


def run(
    folder: Path, environment: dict[str, str], **given: Any
) -> subprocess.CompletedProcess[str]:
    """Write the script beside a program `vllm` that tells its words, and run it from elsewhere."""
    (folder / "serve.sh").write_text(script.serve(plan(**given)))
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\npwd\nfor word; do echo "[$word]"; done\necho "A=$A"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(folder / "serve.sh")],
        cwd="/",
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_words_arrive_as_they_are_from_the_bundles_own_folder(tmp_path: Path) -> None:
    launch = {
        "argv": ("vllm", "--host", HOST, "--odd", "it's $A `b`", "--none", ""),
        "environment": {"A": "x y $B"},
    }

    done = run(tmp_path, {"HOST": "10.0.0.1"}, launch=launch)

    assert done.stdout.splitlines() == [
        str(tmp_path), "[--host]", "[10.0.0.1]", "[--odd]", "[it's $A `b`]", "[--none]", "[]",
        "A=x y $B",
    ]  # fmt: skip


def test_unless_told_it_listens_on_loopback(tmp_path: Path) -> None:
    assert "[127.0.0.1]" in run(tmp_path, {}).stdout


def test_what_is_missing_is_said_before_the_start(tmp_path: Path) -> None:
    done = run(tmp_path, {}, built=True)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "serve.sh: artifact is missing; bash build.sh artifact builds it\n"


def test_a_secret_must_be_set_and_the_hubs_may_be_missing(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "secrets": ("KEY", "HF_TOKEN"), "launch": {"environment": {"KEY": "never told"}},
    }  # fmt: skip

    done = run(tmp_path, {}, **given)

    assert done.returncode != 0
    assert "KEY: set it; it is a secret" in done.stderr
    assert "never told" not in (tmp_path / "serve.sh").read_text()


def test_a_flag_is_a_line() -> None:
    assert script.serve(plan()).splitlines()[-4:] == [
        "exec vllm serve org/m \\",
        '  --host "$host" \\',
        "  --port 8000 \\",
        "  --enforce-eager",
    ]
