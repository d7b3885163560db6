"""Those who ask for holds, and the line of those who wait for one: first come, first served for each balance."""

import time
from collections import deque
from dataclasses import dataclass

from ._batch import Batch, HoldRequest
from ._holds import Grant, Refusal
from ._tickets import Ticket, wake

Answer = Grant | Refusal


@dataclass(slots=True, eq=False)
class Waiting:
    """One who asks; `until` (time.monotonic()) is when waiting ends, None: answer at once."""

    request: HoldRequest
    ticket: Ticket[Answer]
    until: float | None


class WaitingLine:
    """Any thread may ask; the rest belongs to the writer's thread."""

    def __init__(self) -> None:
        self.asking: deque[Waiting] = deque()
        self.waiting: list[Waiting] = []

    def __bool__(self) -> bool:
        return bool(self.asking or self.waiting)

    def take(self, most: int) -> list[Waiting]:
        """Those to decide now; one that is ready to wait stands behind others that wait for the same balance."""
        taken = [self.asking.popleft() for _ in range(min(most, len(self.asking)))]
        in_line = {limit.key for waiting in self.waiting for limit in waiting.request.limits}
        now: list[Waiting] = []
        for asking in taken:
            if asking.until is not None and any(limit.key in in_line for limit in asking.request.limits):
                self.waiting.append(asking)
            elif not asking.ticket.settled:
                now.append(asking)
        return now

    def stay(self, waiting: Waiting) -> None:
        """Let one whose budget has no room now wait in line, if it is not there yet."""
        if waiting not in self.waiting:
            self.waiting.append(waiting)

    def ready(self, look: Batch, *, closing: bool) -> list[Waiting]:
        """Those in line whose turn has come, by a look at the balances; those who wait in vain are answered."""
        self.forget_answered()
        now = time.monotonic()
        return [waiting for waiting in self.waiting if _is_ready(waiting, look, now, closing=closing)]

    def forget_answered(self) -> None:
        """Take those out of the line who have their answer, or have given up."""
        self.waiting = [waiting for waiting in self.waiting if not waiting.ticket.settled]


def _is_ready(waiting: Waiting, look: Batch, now: float, *, closing: bool) -> bool:
    late = closing or (waiting.until is not None and now >= waiting.until)
    if not late and look.stands_behind(waiting.request):
        return False
    answer = look.answer(waiting.request)
    if isinstance(answer, Refusal) and (late or not answer.busy) and waiting.ticket.answer(answer):
        wake([waiting.ticket])
    return isinstance(answer, Grant)
