"""A bug of ours never breaks the user's call: it is logged and counted. Under our own tests it is raised."""

import logging
from types import TracebackType

_log = logging.getLogger("tollspan")


class InternalErrors:
    """`with internal_errors:` around our own code on the user's path. BaseExceptions pass: they are not ours."""

    __slots__ = ("count", "raising")

    def __init__(self) -> None:
        self.count = 0
        self.raising = False

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not isinstance(error, Exception) or self.raising:
            return False
        self.count += 1
        _log.error("tollspan met an error of its own; the call goes on", exc_info=error)
        return True


internal_errors = InternalErrors()
"""The one guard of the process; `doctor` shows its count, our tests set `raising`."""
