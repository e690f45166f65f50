"""What ends dyno politely."""

import signal

from llmdyno.processes.stops import stops


def test_a_closed_terminal_ends_it_unless_nohup_started_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert signal.SIGHUP in stops()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert stops() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
