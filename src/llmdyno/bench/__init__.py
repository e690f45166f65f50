"""One benchmark from end to end: ask, run each level, read what the server says."""
