"""Calibration: our own client measured against the streamer, a server of known timing."""
