"""`python -m llmdyno` is `dyno`."""

from llmdyno.cli import main

main()
