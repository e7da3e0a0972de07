"""`python -m fireprop` is `fireprop`."""

from fireprop.cli import main

main()
