"""`python -m llmdyno` is `dyno`."""

from llmdyno.cli.app import main

main()
