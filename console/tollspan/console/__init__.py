"""The `tollspan` command, and a local provider to test applications against: no key, no network, made-up answers."""

from ._cli import main
from ._provider import Answer, LocalProvider, Request

__all__ = ["Answer", "LocalProvider", "Request", "main"]
