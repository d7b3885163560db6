"""Admission: before a call leaves, every budget that matches it must have room for it.

The steps are one generator that says what to wait for; a thread and a task differ only in how they wait.
"""

import asyncio
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

from tollspan.exporter import CallRecord, Held, Pipeline, hold_event, pipeline, wait_event, withdrawal
from tollspan.ledger import (
    BudgetDefinition,
    CutStream,
    Entry,
    Grant,
    HoldRequest,
    LedgerError,
    Limit,
    Refusal,
    Ticket,
    event_id_for,
)

from ._demand import CallIntent, demand, largest_output
from ._entry import BudgetEntry
from ._errors import LedgerOutOfReach, exceeded
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
    steps, answer = _steps(record, intent, attempt, None), None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            return _done(done)
        if isinstance(step, float):
            time.sleep(step)
            answer = None
            continue
        try:
            answer = step.ticket.wait(step.timeout_s)
        except TimeoutError:
            answer = _too_late(step.ticket)
        except LedgerError as error:
            raise LedgerOutOfReach(f"a strict budget cannot be checked: {error}") from error
        except BaseException:
            _abandon(step.ticket, record, attempt)
            raise


async def aadmit(record: CallRecord, intent: CallIntent, *, attempt: int = 0) -> Admission:
    """Admit one attempt of a call, from a task; as `admit` otherwise."""
    steps, answer = _steps(record, intent, attempt, asyncio.get_running_loop()), None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            return _done(done)
        if isinstance(step, float):
            await asyncio.sleep(step)
            answer = None
            continue
        try:
            answer = await step.ticket.wait_async(step.timeout_s)
        except TimeoutError:
            answer = _too_late(step.ticket)
        except LedgerError as error:
            raise LedgerOutOfReach(f"a strict budget cannot be checked: {error}") from error
        except BaseException:
            _abandon(step.ticket, record, attempt)
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


def _abandon(ticket: Ticket[Answer], record: CallRecord, attempt: int) -> None:
    """The waiter was interrupted: a hold that was granted at the same moment goes back."""
    if not ticket.give_up() and isinstance(ticket.result(), Grant):
        hold_id = event_id_for(record.call_id, "precheck_hold", attempt)
        pipeline().ledger.writer.put(Entry(withdrawal(record, attempt), hold_id))


def _steps(record: CallRecord, intent: CallIntent, attempt: int, loop: asyncio.AbstractEventLoop | None) -> Steps:
    line = pipeline()
    began, ignored = time.monotonic(), set[BudgetDefinition]()
    while True:
        matches = list(_matching(line, record))
        if not matches:
            return Admission()
        remember(line.ledger.writer, [m.definition for m in matches])
        record.limits = tuple(m.limit for m in matches)
        strict = any(m.definition.mode == "strict" for m in matches)
        checked = [m for m in matches if m.definition not in ignored]
        if strict:
            answer = yield from _ask(line, record, intent, attempt, checked, began, loop)
        else:
            answer = _look(line, checked)
        if isinstance(answer, Grant):
            break
        refusing = next(m.definition for m in checked if m.limit.key == answer.limit.key)
        if refusing.on_limit == "warn":
            _log.warning("%s; the call goes on, because the budget only warns", exceeded(answer))
            ignored.add(refusing)
            continue
        pause = _pause(answer, refusing, began)
        if pause is None:
            raise exceeded(answer)
        yield pause
    return _admission(line, record, intent, matches, answer, time.monotonic() - began)


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


def _ask(
    line: Pipeline,
    record: CallRecord,
    intent: CallIntent,
    attempt: int,
    checked: list[_Match],
    began: float,
    loop: asyncio.AbstractEventLoop | None,
) -> Generator[_Waiting | float, Answer | None, Answer]:
    """Strict: a durable hold in every limit, or a refusal."""
    needs = demand(intent, [m.definition for m in checked], line.settings)
    limits = tuple(m.limit for m in checked)
    hold_id = event_id_for(record.call_id, "precheck_hold", attempt)

    def held(grant: Grant) -> Held:
        nano = needs.cost.nano(grant.output_tokens) if needs.cost else None
        return Held(hold_id, limits, grant.amounts, nano)

    request = HoldRequest(
        hold_id=hold_id,
        demand=needs,
        limits=limits,
        describe=lambda grant: hold_event(record, held(grant), attempt),
        withdraw=lambda: withdrawal(record, attempt),
        patient=any(m.definition.on_limit == "wait" for m in checked),
    )
    wait_s = _line_s(checked, began)
    ticket = line.ledger.writer.ask(request, wait_s=wait_s, loop=loop)
    answer = yield _Waiting(ticket, (wait_s or 0) + line.settings.busy_timeout_ms / 1000 + _PATIENCE_S)
    assert answer is not None, "a ticket is answered with a grant or a refusal"
    if isinstance(answer, Grant):
        record.held = held(answer)
    return answer


def _line_s(checked: list[_Match], began: float) -> float | None:
    """How long to stand in line: only where every budget waits, and not beyond the end of a window."""
    if not checked or any(m.definition.on_limit != "wait" for m in checked):
        return None
    left = began + min(m.definition.max_wait_timeout_s for m in checked) - time.monotonic()
    resets = [m.limit.reset_at - time.time() for m in checked if m.limit.reset_at is not None]
    return max(0.0, min([left, *resets]))


def _look(line: Pipeline, checked: list[_Match]) -> Answer:
    """best_effort: compare with the balances as this process last saw them; nothing is written, nothing is waited for."""
    for match in checked:
        with suppress(LedgerError):  # the writer reports a ledger that cannot be used; best_effort goes on without it
            balance = line.ledger.cached_balance(match.limit.key)
            if balance.spent + balance.held >= match.limit.limit:
                return Refusal(match.limit, balance, 0, busy=balance.spent < match.limit.limit)
    return Grant(0, ())


def _pause(answer: Refusal, refusing: BudgetDefinition, began: float) -> float | None:
    """Seconds to sleep before asking again; None where waiting is not wanted or cannot help in time."""
    left = began + refusing.max_wait_timeout_s - time.monotonic()
    if refusing.on_limit != "wait" or left <= 0:
        return None
    if answer.busy:
        return min(_LOOK_AGAIN_S, left)
    if answer.limit.reset_at is None:
        return None
    until_reset = max(0.0, answer.limit.reset_at - time.time()) + 0.001
    return until_reset if until_reset <= left else None


def _admission(
    line: Pipeline, record: CallRecord, intent: CallIntent, matches: list[_Match], grant: Grant, waited_s: float
) -> Admission:
    waited_ms = waited_s * 1000 if any(m.definition.on_limit == "wait" for m in matches) else 0.0
    if waited_ms > _LOOK_AGAIN_S * 1000:
        line.ledger.writer.put(Entry(wait_event(record, waited_ms)))
    unasked = intent.max_output_tokens is None and intent.clampable and intent.unbounded is None
    cut = record.held is not None and unasked and grant.output_tokens < largest_output(intent.price)
    return Admission(
        output_tokens=grant.output_tokens if cut else None,
        waited_ms=waited_ms,
        budgets=tuple(m.definition.name for m in matches),
        cut_stream="estimate" if all(m.definition.cut_stream == "estimate" for m in matches) else "hold",
    )
