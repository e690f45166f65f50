"""The page of a benchmark or a study that runs, on loopback.

What measures sends a few hundred bytes a second to a process beside it (`board`), which serves the
page and its events (`server`). So a slow browser, or many of them, cannot hold the measurement up.
"""
