"""The client itself, measured against the streamer."""
