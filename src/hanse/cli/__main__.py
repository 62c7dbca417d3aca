"""`python -m hanse.cli`: the same as the `hanse` command, without its being on PATH."""

from hanse.cli.main import main

main()
