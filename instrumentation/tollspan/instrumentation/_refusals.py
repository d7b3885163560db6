"""How the refusal of a budget comes through an SDK, and through our own guard, to the caller."""

from types import TracebackType
from typing import Self

from tollspan.budget import CallRefused


class AttemptRefused(BaseException):
    """A budget refuses an SDK's retry. No Exception, because an SDK would swallow and repeat one; never leaves us."""

    def __init__(self, refusal: CallRefused) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Refusals:
    """Keeps a refusal out of the guard against our own bugs: it is meant for the caller."""

    __slots__ = ("refusal",)

    def __init__(self) -> None:
        self.refusal: CallRefused | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.refusal = error if isinstance(error, CallRefused) else None
        return self.refusal is not None
