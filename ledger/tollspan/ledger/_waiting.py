"""Those who ask for holds, and the line of those who wait for one: first come, first served for each balance."""

import time
from collections import deque
from dataclasses import dataclass, replace

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
    is_new: bool = True  # in line: a limit may have changed between its asking and its standing there

    def hopes(self, answer: Answer) -> bool:
        """Whether it is worth waiting on after this answer: there will be room in time, as far as anybody can tell."""
        if self.until is None or isinstance(answer, Grant) or not (answer.limit.waits and answer.may_pass):
            return False
        left = self.until - time.monotonic()
        return left > 0 and (answer.busy or (answer.limit.reset_at or 0) - time.time() <= left)


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
        in_line = {line for waiting in self.waiting for line in waiting.request.lines}
        now: list[Waiting] = []
        for asking in taken:
            if asking.until is not None and not in_line.isdisjoint(asking.request.lines):
                self.waiting.append(asking)
            elif not asking.ticket.settled:
                now.append(asking)
        return now

    def stay(self, waiting: Waiting) -> None:
        """Let one whose budget has no room now wait in line, if it is not there yet."""
        if waiting not in self.waiting:
            self.waiting.append(waiting)

    def renew(self, *, changed: bool) -> bool:
        """Let those in line ask for what counts now, where a window has turned or a limit has `changed`.

        True where anybody does, or is new in the line.
        """
        now = time.time()
        outdated = [w for w in self.waiting if changed or w.is_new or now >= w.request.expires]
        for waiting in outdated:
            waiting.is_new = False
            if waiting.request.renew is not None:
                try:
                    waiting.request = replace(waiting.request.renew(), queued=True)
                except Exception as error:  # noqa: BLE001 - it concerns this one alone, which is refused
                    if waiting.ticket.answer(None, error):
                        wake([waiting.ticket])
        return bool(outdated)

    def is_due(self) -> bool:
        """Whether somebody's time is over, or somebody has left the line: then others may move up."""
        now = time.monotonic()
        return any(w.ticket.settled or (w.until is not None and now >= w.until) for w in self.waiting)

    def ready(self, look: Batch, *, closing: bool) -> list[Waiting]:
        """Those in line whose turn has come, by a look at the balances; those who wait in vain are answered."""
        self.forget_answered()
        return [waiting for waiting in self.waiting if _is_ready(waiting, look, closing=closing)]

    def forget_answered(self) -> None:
        """Take those out of the line who have their answer, or have given up."""
        self.waiting = [waiting for waiting in self.waiting if not waiting.ticket.settled]


def _is_ready(waiting: Waiting, look: Batch, *, closing: bool) -> bool:
    late = closing or (waiting.until is not None and time.monotonic() >= waiting.until)
    if not late and look.stands_behind(waiting.request):
        return False
    answer = look.answer(waiting.request)
    if isinstance(answer, Grant):
        return True
    if (late or not waiting.hopes(answer)) and waiting.ticket.answer(answer):
        wake([waiting.ticket])
    return False
