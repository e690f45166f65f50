"""One benchmark from end to end: detect the server, run each level, read the server's metrics."""
