"""`python -m llmdyno.streamer` starts a server of known timing."""

from llmdyno.streamer.server import main

main()
