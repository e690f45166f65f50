"""A server of exactly known timing: `python -m llmdyno.streamer`."""
