"""The streamer: a server of exactly known timing, started by `python -m llmdyno.streamer`."""
