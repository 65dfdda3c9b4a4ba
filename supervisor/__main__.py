"""`python -m supervisor` is the same as `supervisor`."""

from supervisor.cli.main import main

main()
