"""Admission: before a call leaves, every budget that matches it must have room for it.

The steps are one generator that says what to wait for; a thread and a task differ only in how they wait.
"""

import asyncio
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

from tollspan.exporter import CallRecord, Held, Pipeline, hold_event, pipeline, wait_event, withdrawal
from tollspan.ledger import (
    BudgetDefinition,
    CutStream,
    Entry,
    Grant,
    HoldRequest,
    Key,
    LedgerError,
    Limit,
    Refusal,
    Ticket,
    Unit,
    event_id_for,
)

from ._demand import CallIntent, demand, largest_output
from ._entry import BudgetEntry
from ._errors import CallRefused, LedgerOutOfReach, exceeded
from ._known import remember
from ._reach import reach

_log = logging.getLogger("tollspan.budget")

_PATIENCE_S = 15.0
"""How long a hold may take to become durable, beyond SQLite's own busy timeout, before the call is refused."""
_LOOK_AGAIN_S = 0.05

Answer = Grant | Refusal


@dataclass(frozen=True, slots=True)
class _Waiting:
    ticket: Ticket[Answer]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What asks for admission: the attempt of a call, and the event loop of its task; None for a thread."""

    record: CallRecord
    intent: CallIntent
    number: int
    loop: asyncio.AbstractEventLoop | None
    began: float  # time.monotonic()

    def hold_id(self) -> bytes:
        return event_id_for(self.record.call_id, "precheck_hold", self.number)


Steps = Generator[_Waiting | float, Answer | None, "Admission"]


@dataclass(frozen=True, slots=True)
class Admission:
    """The call may go. `output_tokens` is the maximum that its request must carry, None where it stays as it is.

    `cut_stream` says what is booked for a stream that is cut before its usage comes.
    """

    output_tokens: int | None = None
    waited_ms: float = 0.0
    budgets: tuple[str, ...] = ()
    cut_stream: CutStream = "hold"


@dataclass(frozen=True, slots=True)
class _Match:
    definition: BudgetDefinition
    limit: Limit


def is_budgeted() -> bool:
    """Whether any budget is in force here; where none is, no call needs admission."""
    return bool(reach().entries or pipeline().settings.budgets)


def admit(record: CallRecord, intent: CallIntent, *, attempt: int = 0) -> Admission:
    """Admit one attempt of a call, from a thread; fills in `limits` and `held` of its record. Raises CallRefused."""
    asks = _Attempt(record, intent, attempt, None, time.monotonic())
    steps, answer = _steps(asks), None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            return _done(done)
        if isinstance(step, float):
            time.sleep(step)
            answer = None
            continue
        with _fails_closed():
            try:
                answer = step.ticket.wait(step.timeout_s)
            except TimeoutError:
                answer = _too_late(step.ticket)
            except BaseException:
                _abandon(step.ticket, asks)
                raise


async def aadmit(record: CallRecord, intent: CallIntent, *, attempt: int = 0) -> Admission:
    """Admit one attempt of a call, from a task; as `admit` otherwise."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another kind of loop, such as trio's: it stands still for the time of a hold
        return admit(record, intent, attempt=attempt)
    asks = _Attempt(record, intent, attempt, loop, time.monotonic())
    steps, answer = _steps(asks), None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            return _done(done)
        if isinstance(step, float):
            await asyncio.sleep(step)
            answer = None
            continue
        with _fails_closed():
            try:
                answer = await step.ticket.wait_async(step.timeout_s)
            except TimeoutError:
                answer = _too_late(step.ticket)
            except BaseException:
                _abandon(step.ticket, asks)
                raise


def _done(stop: StopIteration) -> Admission:
    admission: Admission = stop.value
    return admission


def _too_late(ticket: Ticket[Answer]) -> Answer | None:
    if ticket.give_up():
        raise LedgerOutOfReach(
            "a strict budget cannot be checked: the ledger did not answer in time; see `tollspan doctor`"
        )
    return ticket.result()


@contextmanager
def _fails_closed() -> Iterator[None]:
    """Whatever keeps a strict hold from being taken, a bug of ours included, refuses the call."""
    try:
        yield
    except CallRefused:
        raise
    except Exception as error:
        what = error if isinstance(error, LedgerError) else type(error).__name__
        raise LedgerOutOfReach(f"a strict budget cannot be checked: {what}") from error


def _abandon(ticket: Ticket[Answer], asks: _Attempt) -> None:
    """The waiter was interrupted: a hold that was granted at the same moment goes back."""
    answer: Answer | None = None
    with suppress(Exception):  # answered with an error, and so without a hold
        answer = None if ticket.give_up() else ticket.result()
    if isinstance(answer, Grant):
        pipeline().ledger.writer.put(Entry(withdrawal(asks.record, asks.number), asks.hold_id()))


def _steps(asks: _Attempt) -> Steps:
    line = pipeline()
    while True:
        matches = list(_matching(line, asks.record))
        if not matches:
            return Admission()
        asks.record.limits = tuple(m.limit for m in _balances(matches))
        enforced = [m for m in matches if m.definition.on_limit != "warn"]
        warning = [m for m in matches if m.definition.on_limit == "warn"]
        strict, checked = any(m.definition.mode == "strict" for m in enforced), _balances(enforced)
        with _fails_closed() if strict else nullcontext():
            remember(line.ledger.writer, [m.definition for m in matches])
            if strict:
                answer = yield from _ask(line, asks, checked)
            else:
                answer = next(_full(line, checked), None) or Grant(0, ())
        if isinstance(answer, Grant):
            break
        refusing = next(m.definition for m in checked if m.limit == answer.limit)
        pause = _pause(answer, refusing, asks.began)
        if pause is None:
            raise exceeded(answer)
        yield pause
    for refusal in _full(line, _balances(warning)):
        _log.warning("%s; the call goes on, because the budget only warns", exceeded(refusal))
    return _admission(line, asks, matches, answer)


def _matching(line: Pipeline, record: CallRecord) -> Iterator[_Match]:
    """The budgets in force here that match the call, with the balance of each in the window that is current."""
    entries = reach().entries
    configured = line.settings.budgets
    if not (entries or configured):
        return
    dimensions = {
        **record.dimensions,
        "model": record.request_model or "",
        "provider": record.provider or "",
        "operation": record.operation,
    }
    now = time.time()
    for entry in (*entries, *(BudgetEntry(d) for d in configured)):
        definition = entry.definition
        scope = definition.scope(dimensions) if entry.open else None
        if scope is not None:
            end = definition.window.end(now) if definition.window else None
            name, balance, start = entry.key(scope, now)
            yield _Match(definition, Limit(name, balance, start, definition.unit, definition.limit, end))


def _balances(matches: list[_Match]) -> list[_Match]:
    """One match for each balance, at its lowest limit: a budget that was entered twice counts a call once."""
    if len(matches) <= 1:
        return matches
    lowest: dict[tuple[Key, Unit], _Match] = {}
    for match in matches:
        balance = (match.limit.key, match.limit.unit)
        if match.limit.limit <= lowest.setdefault(balance, match).limit.limit:
            lowest[balance] = match
    return list(lowest.values())


def _ask(line: Pipeline, asks: _Attempt, checked: list[_Match]) -> Generator[_Waiting | float, Answer | None, Answer]:
    """Strict: a durable hold in every limit, or a refusal."""
    record, number, hold_id = asks.record, asks.number, asks.hold_id()
    # What an SDK repeats is the request as it was made.
    intent = replace(asks.intent, clampable=False) if number else asks.intent
    needs = demand(intent, [m.definition for m in checked], line.settings)
    limits = tuple(m.limit for m in checked)

    def held(grant: Grant) -> Held:
        nano = needs.cost.nano(grant.output_tokens) if needs.cost else None
        return Held(hold_id, limits, grant.amounts, nano)

    wait_s = _line_s(checked, asks.began)
    request = HoldRequest(
        hold_id=hold_id,
        demand=needs,
        limits=limits,
        describe=lambda grant: hold_event(record, held(grant), number),
        withdraw=lambda: withdrawal(record, number),
        patient=wait_s is not None,
    )
    ticket = line.ledger.writer.ask(request, wait_s=wait_s, loop=asks.loop)
    answer = yield _Waiting(ticket, (wait_s or 0) + line.settings.busy_timeout_ms / 1000 + _PATIENCE_S)
    assert answer is not None, "a ticket is answered with a grant or a refusal"
    if isinstance(answer, Grant):
        record.held = held(answer)
    return answer


def _line_s(checked: list[_Match], began: float) -> float | None:
    """How long to stand in line: only where every budget waits, and not beyond the end of a window."""
    if any(m.definition.on_limit != "wait" for m in checked):
        return None
    left = began + min(m.definition.max_wait_timeout_s for m in checked) - time.monotonic()
    resets = [m.limit.reset_at - time.time() for m in checked if m.limit.reset_at is not None]
    return max(0.0, min([left, *resets]))


def _full(line: Pipeline, matches: list[_Match]) -> Iterator[Refusal]:
    """best_effort: those that are full, as this process last saw their balances; nothing is written or waited for."""
    for match in matches:
        limit, balance = match.limit, None
        with suppress(LedgerError):  # the writer reports a ledger that cannot be used; best_effort goes on without it
            balance = line.ledger.cached_balance(limit.key)
        if balance is not None and balance.spent + balance.held >= limit.limit:
            yield Refusal(limit, balance, 0, busy=balance.spent < limit.limit)


def _pause(answer: Refusal, refusing: BudgetDefinition, began: float) -> float | None:
    """Seconds to sleep before asking again; None where waiting is not wanted or cannot help in time."""
    left = began + refusing.max_wait_timeout_s - time.monotonic()
    if refusing.on_limit != "wait" or left <= 0 or answer.needed > answer.limit.limit:
        return None
    if answer.busy:
        return min(_LOOK_AGAIN_S, left)
    if answer.limit.reset_at is None:
        return None
    until_reset = max(0.0, answer.limit.reset_at - time.time()) + 0.001
    return until_reset if until_reset <= left else None


def _admission(line: Pipeline, asks: _Attempt, matches: list[_Match], grant: Grant) -> Admission:
    record, intent = asks.record, asks.intent
    waits = any(m.definition.on_limit == "wait" for m in matches)
    waited_ms = (time.monotonic() - asks.began) * 1000 if waits else 0.0
    if waited_ms > _LOOK_AGAIN_S * 1000:
        line.ledger.writer.put(Entry(wait_event(record, waited_ms, asks.number)))
    unasked = intent.max_output_tokens is None and intent.clampable and intent.unbounded is None
    cut = (
        record.held is not None and unasked and asks.number == 0 and grant.output_tokens < largest_output(intent.price)
    )
    return Admission(
        output_tokens=grant.output_tokens if cut else None,
        waited_ms=waited_ms,
        budgets=tuple(dict.fromkeys(m.definition.name for m in matches)),
        cut_stream="estimate" if all(m.definition.cut_stream == "estimate" for m in matches) else "hold",
    )
