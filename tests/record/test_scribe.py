"""The scribe: frames in, lines out, each whole and at once."""

import io
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno.record.entries import Passed, Settings, Written
from llmdyno.record.lines import Lines
from llmdyno.record.scribe import COMMAND, frame, frames, write_all
from waiting import until


def request(status: int = 200) -> bytes:
    body = b'{"messages":[{"role":"user","content":"hi"}]}'
    return msgspec.msgpack.encode(
        Passed(path="/v1/chat/completions", headers={}, body=body, status=status)
    )


def settings(out: Path) -> Settings:
    return Settings(out=str(out), started_ns=0, key=b"k", block_characters=64)


def test_a_frame_that_is_cut_off_is_left_out() -> None:
    data = frame(b"one") + frame(b"") + frame(b"three")

    assert list(frames(io.BytesIO(data))) == [b"one", b"", b"three"]
    assert list(frames(io.BytesIO(data[:-1]))) == [b"one", b""]
    assert list(frames(io.BytesIO(data[:4]))) == []


def test_the_process_writes_each_line_and_says_how_many(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    sent = [msgspec.msgpack.encode(settings(out)), request(), request(500), request()]

    done = subprocess.run(
        COMMAND, input=b"".join(map(frame, sent)), capture_output=True, check=True, timeout=20
    )

    assert msgspec.json.decode(done.stdout, type=Written) == Written(requests=3, failed=1)
    rows = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert [row["session"] for row in rows] == [0, 1, 2]
    assert [row["outcome"] for row in rows] == ["completed", "failed", "completed"]
    assert out.stat().st_mode & 0o077 == 0  # for its owner alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_its_input_and_not_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """A service that is told to stop gets some of these in each of its processes."""
    out = tmp_path / "t.jsonl"
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as scribe:
        assert scribe.stdin is not None
        scribe.stdin.write(frame(msgspec.msgpack.encode(settings(out))))
        scribe.stdin.flush()
        until(out.exists, "the trace")
        scribe.send_signal(number)
        said, _ = scribe.communicate(frame(request()), timeout=60)

    assert scribe.returncode == 0
    assert msgspec.json.decode(said, type=Written) == Written(requests=1)


def test_what_cannot_be_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    full = False

    def half(file: int, data: Any) -> int:
        nonlocal full
        if full:
            raise OSError(28, "No space left on device")
        full = True
        return write(file, data[:10])

    monkeypatch.setattr(os, "write", half)
    file = os.open(tmp_path / "t.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        written = write_all(iter([request(), request()]), Lines(settings(tmp_path)), file)
    finally:
        os.close(file)

    assert written == Written(lost=2, why_lost="No space left on device")
    assert (tmp_path / "t.jsonl").read_bytes() == b""
