"""What this process has noted lately, by the ids that providers give."""

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")
_MOST = 4_096


class Lately(Generic[V]):
    """The latest 4,096 of what was noted, by id."""

    __slots__ = ("_noted",)

    def __init__(self) -> None:
        self._noted: OrderedDict[str, V] = OrderedDict()

    def __contains__(self, ident: str) -> bool:
        return ident in self._noted

    def get(self, ident: str) -> V | None:
        """What was noted, or None."""
        return self._noted.get(ident)

    def note(self, ident: str, value: V) -> None:
        """Note something, and forget what is older than the latest."""
        self._noted[ident] = value
        while len(self._noted) > _MOST:
            self._noted.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._noted.clear()


TASKS: Lately[str] = Lately()
"""The models of tasks that this process has begun: some providers do not tell them again when a task is fetched."""
