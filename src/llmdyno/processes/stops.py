"""The signals that end what dyno does, with what was measured kept."""

import signal


def stops() -> tuple[signal.Signals, ...]:
    """Return the signals by which a person or a machine ends dyno politely.

    A terminal that is closed, or a connection to it that breaks, hangs up; but for who started dyno
    with nohup, which lets it ignore that.
    """
    hears = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hears else ()))
