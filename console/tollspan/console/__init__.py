"""The command line: `tollspan`, or `python -m tollspan.console`."""

from ._cli import main

__all__ = ["main"]
