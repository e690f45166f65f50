"""What every command prints."""

import io
import json
import os
import signal

import pytest

from llmdyno.cli.output import print_json, print_line, say, terminate_as_interrupt


def test_results_go_to_standard_output_and_words_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say("a word")
    print_line("a result")
    print_json({"n": 1, "of": (2, 3)})

    assert capsys.readouterr() == ('a result\n{"n":1,"of":[2,3]}\n', "a word\n")


def test_json_is_json_on_a_terminal_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, "latin-1", "backslashreplace"))

    print_json({"µ": "ē"})

    assert json.loads(raw.getvalue().decode("latin-1")) == {"µ": "ē"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_end_is_an_interrupt_and_no_longer_than_the_work(number: signal.Signals) -> None:
    def be_ended() -> None:
        with terminate_as_interrupt():
            os.kill(os.getpid(), number)
            signal.pause()

    before = signal.signal(number, signal.SIG_DFL)
    try:
        with terminate_as_interrupt():
            assert signal.getsignal(number) is not signal.SIG_DFL
        assert signal.getsignal(number) is signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            be_ended()
        if number == signal.SIGHUP:  # bash passes on what the terminal has sent already
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def test_a_second_hang_up_leaves_the_cleanup_alone() -> None:
    cleaned = False

    def be_ended() -> None:
        nonlocal cleaned
        with terminate_as_interrupt():
            try:
                os.kill(os.getpid(), signal.SIGHUP)
                signal.pause()
            finally:
                os.kill(os.getpid(), signal.SIGHUP)
                cleaned = True

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt):
            be_ended()
    finally:
        signal.signal(signal.SIGHUP, before)

    assert cleaned
