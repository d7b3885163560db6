"""Admission: before a call leaves, every budget that matches it must have room for it.

The steps are one generator that says what to wait for; a thread and a task differ only in how they wait.
"""

import asyncio
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace

from tollspan.exporter import CallRecord, Held, Pipeline, hold_event, pipeline, wait_event, withdrawal
from tollspan.ledger import (
    BudgetDefinition,
    CutStream,
    Entry,
    Grant,
    HoldRequest,
    LedgerError,
    Refusal,
    Ticket,
    event_id_for,
)

from ._demand import CallIntent, demand, maximum_to_send
from ._entry import BudgetEntry
from ._errors import CallRefused, LedgerOutOfReach, exceeded
from ._known import remember
from ._matching import Match, Terms, terms_of
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
    entries: tuple[BudgetEntry, ...]
    began: float  # time.monotonic()
    models: tuple[str, ...] = ()
    """The models to ask instead, one after the other, where a budget has no room for the one that was asked for."""

    tickets: list[Ticket[Answer]] = field(default_factory=list)
    """What was asked of the ledger: to be given up where the caller is interrupted, at whatever moment."""

    @property
    def model(self) -> str | None:
        return self.models[-1] if self.models else None

    def hold_id(self) -> bytes:
        return event_id_for(self.record.call_id, "precheck_hold", self.number)

    def terms(self, line: Pipeline) -> Terms:
        return terms_of(line, self.record, self.entries, time.time())


Steps = Generator[_Waiting | float, Answer | None, "Admission"]


@dataclass(frozen=True, slots=True)
class Admission:
    """The call may go. `output_tokens` is the maximum that its request must carry, None where it stays as it is.

    `model` is the model that it must ask for instead, None where it stays as it is. `cut_stream` says what is done
    about a stream that is cut before its usage comes.
    """

    output_tokens: int | None = None
    model: str | None = None
    waited_ms: float = 0.0
    budgets: tuple[str, ...] = ()
    cut_stream: CutStream = "hold"


def is_budgeted() -> bool:
    """Whether any budget is in force here; where none is, no call needs admission."""
    if reach().entries:
        return True
    line = pipeline()
    return bool(line.settings.budgets or line.ledger.overrides)


def holds_tokens(record: CallRecord) -> bool:
    """Whether a strict budget matches a call whose hold goes by the tokens of that."""
    if not is_budgeted():
        return False
    terms = terms_of(pipeline(), record, reach().entries, time.time())
    return terms.is_strict and any(match.definition.unit in ("USD", "tokens") for match in terms.enforced)


def admit(record: CallRecord, intent: CallIntent, *, attempt: int = 0) -> Admission:
    """Admit one attempt of a call, from a thread; fills in `limits` and `held` of its record. Raises CallRefused."""
    asks = _Attempt(record, intent, attempt, None, reach().entries, time.monotonic())
    with _given_up(asks):
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


async def aadmit(record: CallRecord, intent: CallIntent, *, attempt: int = 0) -> Admission:
    """Admit one attempt of a call, from a task; as `admit` otherwise."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another kind of loop, such as trio's: it stands still for the time of a hold
        return admit(record, intent, attempt=attempt)
    asks = _Attempt(record, intent, attempt, loop, reach().entries, time.monotonic())
    with _given_up(asks):
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


@contextmanager
def _given_up(asks: _Attempt) -> Iterator[None]:
    """Where the caller is interrupted, nothing that was asked for is kept: a hold that was granted goes back."""
    try:
        yield
    except BaseException:
        for ticket in asks.tickets:
            _abandon(ticket, asks)
        raise


def _abandon(ticket: Ticket[Answer], asks: _Attempt) -> None:
    answer: Answer | None = None
    with suppress(Exception):  # answered with an error, and so without a hold
        answer = None if ticket.give_up() else ticket.result()
    if isinstance(answer, Grant):
        asks.record.held = None
        pipeline().ledger.writer.put(Entry(withdrawal(asks.record, asks.number), asks.hold_id()))


def _steps(asks: _Attempt) -> Steps:
    asked_model = asks.record.request_model
    try:
        return (yield from _admitted(asks))
    except CallRefused:
        asks.record.request_model = asked_model
        raise


def _admitted(asks: _Attempt) -> Steps:
    line = pipeline()
    while True:
        terms = asks.terms(line)
        if not terms.matches:
            return Admission(model=asks.model)
        asks.record.limits = terms.limits
        with _fails_closed() if terms.is_strict else nullcontext():
            remember(line.ledger, [m.definition for m in terms.matches if not m.is_received])
            if terms.is_strict:
                terms, answer = yield from _ask(line, asks, terms)
            else:
                answer = next(_full(line, terms.enforced), None) or Grant(0, ())
        if isinstance(answer, Grant):
            break
        refusing = terms.of(answer.limit)
        cheaper = _fallen_back(asks, refusing)
        pause = None if terms.is_strict or cheaper else _pause(answer, refusing, asks.began, line.max_wait_s)
        if cheaper is None and pause is None:
            raise exceeded(answer)
        asks = cheaper or asks
        if pause is not None:
            yield pause
    for refusal in _full(line, terms.warning):
        _log.warning("%s; the call goes on, because the budget only warns", exceeded(refusal))
    return _admission(line, asks, terms, answer)


def _fallen_back(asks: _Attempt, refusing: BudgetDefinition) -> _Attempt | None:
    """The same call to the cheaper model of the budget that has refused it; None where there is none left to try."""
    model, record = refusing.fallback_model, asks.record
    of_model = asks.intent.of_model
    if model is None or of_model is None or asks.number or model in (*asks.models, record.request_model):
        return None
    record.request_model = model
    return replace(asks, models=(*asks.models, model), intent=of_model(model))


class _Asking:
    """A strict budget's question: a durable hold in every limit, or a refusal. It is renewed while it waits in line."""

    def __init__(self, line: Pipeline, asks: _Attempt, terms: Terms) -> None:
        self.line, self.asks, self.terms = line, asks, terms

    def request(self) -> HoldRequest:
        """What is asked now. Raises UnpricedModel, UnboundedCost."""
        record, number, enforced = self.asks.record, self.asks.number, self.terms.enforced
        # What an SDK repeats is the request as it was made.
        intent = replace(self.asks.intent, clampable=False) if number else self.asks.intent
        needs = demand(intent, [m.definition for m in enforced], self.line.settings)

        def held(grant: Grant) -> Held:
            nano = needs.cost.nano(grant.output_tokens) if needs.cost else None
            return Held(self.asks.hold_id(), grant.limits, grant.amounts, nano)

        self.held = held
        return HoldRequest(
            hold_id=self.asks.hold_id(),
            demand=needs,
            limits=tuple(m.limit for m in enforced),
            describe=lambda grant: hold_event(record, held(grant), number),
            withdraw=lambda: withdrawal(record, number),
            expires=self.terms.expires,
            renew=self.renewed,
        )

    def renewed(self) -> HoldRequest:
        """What is asked when a window has turned or a limit was changed; on the writer's thread."""
        self.terms = self.asks.terms(self.line)
        return self.request()


def _ask(
    line: Pipeline, asks: _Attempt, terms: Terms
) -> Generator[_Waiting | float, Answer | None, tuple[Terms, Answer]]:
    asking = _Asking(line, asks, terms)
    longest = terms.max_wait_s()
    wait_s = None if longest is None else max(0.0, asks.began + min(longest, line.max_wait_s) - time.monotonic())
    request, ticket = asking.request(), Ticket[Answer](asks.loop)
    asks.tickets.append(ticket)
    line.ledger.writer.ask(request, wait_s=wait_s, ticket=ticket)
    answer = yield _Waiting(ticket, (wait_s or 0) + line.settings.busy_timeout_ms / 1000 + _PATIENCE_S)
    assert answer is not None, "a ticket is answered with a grant or a refusal"
    if isinstance(answer, Grant):
        asks.record.limits, asks.record.held = asking.terms.limits, asking.held(answer)
    return asking.terms, answer


def _full(line: Pipeline, matches: Sequence[Match]) -> Iterator[Refusal]:
    """best_effort: those that are full, as this process last saw their balances; nothing is written or waited for."""
    for match in matches:
        limit, balance = match.limit, None
        with suppress(LedgerError):  # the writer reports a ledger that cannot be used; best_effort goes on without it
            balance = line.ledger.cached_balance(limit.key, limit.span)
        if balance is not None and (over := balance.spent + balance.held - limit.limit) >= 0:
            if limit.span:
                with suppress(LedgerError):
                    limit = replace(limit, reset_at=line.ledger.room_at(limit.key, limit.span, over + 1))
            yield Refusal(limit, balance, 0, busy=balance.spent < limit.limit)


def _pause(answer: Refusal, refusing: BudgetDefinition, began: float, max_wait_s: float) -> float | None:
    """best_effort: seconds to sleep before looking again; None where waiting is not wanted or cannot help in time."""
    left = began + min(refusing.max_wait_timeout_s, max_wait_s) - time.monotonic()
    if refusing.on_limit != "wait" or left <= 0:
        return None
    if answer.busy or answer.limit.span:
        return min(_LOOK_AGAIN_S, left)
    if answer.limit.reset_at is None:
        return None
    until_reset = max(0.0, answer.limit.reset_at - time.time()) + 0.001
    return min(_LOOK_AGAIN_S, until_reset) if until_reset <= left else None  # the limit may be raised meanwhile


def _admission(line: Pipeline, asks: _Attempt, terms: Terms, grant: Grant) -> Admission:
    record, intent = asks.record, asks.intent
    waited_ms = 0.0 if terms.max_wait_s() is None else (time.monotonic() - asks.began) * 1000
    if waited_ms > _LOOK_AGAIN_S * 1000:
        line.ledger.writer.put(Entry(wait_event(record, waited_ms, asks.number)))
    maximum = None
    if record.held is not None and asks.number == 0:  # what an SDK repeats carries it already
        maximum = maximum_to_send(intent, [m.definition for m in terms.enforced], grant.output_tokens)
    return Admission(
        output_tokens=maximum,
        model=asks.model,
        waited_ms=waited_ms,
        budgets=tuple(dict.fromkeys(m.definition.name for m in terms.matches)),
        cut_stream=_cut_stream(terms),
    )


def _cut_stream(terms: Terms) -> CutStream:
    wishes = {match.definition.cut_stream for match in terms.matches}
    if "drain" in wishes:
        return "drain"
    return "estimate" if wishes == {"estimate"} else "hold"
