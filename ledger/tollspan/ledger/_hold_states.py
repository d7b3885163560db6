"""The life of a hold as a table: the documentation is made from it, and the tests hold the ledger to it.

Every attempt of a call has a hold of its own; a call has one after the other, never two at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ._events import EventType, LedgerEvent

HoldState = Literal[
    "asked", "waiting", "refused", "given_up", "held", "settled", "estimated", "retried", "cancelled", "pruned"
]
Counted = Literal["cost", "estimate", "hold", "difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step in the life of a hold: by what `cause`, which event is written, and what that does to its balances.

    `held` is +1 where its amount is taken, -1 where it is given back. `spent` is what is added to the spend, if
    anything: the actual cost, an estimate (the balance counts it as estimated too), the hold itself as an estimate, or
    the difference between what was counted and what is right.
    """

    before: HoldState
    cause: str
    after: HoldState
    meaning: str
    event: EventType | None = None
    held: Literal[-1, 0, 1] = 0
    spent: Counted | None = None


TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        before="asked",
        cause="admitted",
        after="held",
        event="precheck_hold",
        held=1,
        meaning="every limit has room; on disk before the request leaves",
    ),
    Transition(
        before="asked",
        cause="no room",
        after="refused",
        meaning="a limit has no room, and the call does not wait, or the limit is spent",
    ),
    Transition(
        before="asked",
        cause="no ledger",
        after="refused",
        meaning="the ledger cannot be written: a strict budget refuses what it cannot check",
    ),
    Transition(
        before="asked",
        cause="in line",
        after="waiting",
        meaning="calls in flight hold the room, or others wait for it; first come, first served",
    ),
    Transition(before="asked", cause="left", after="given_up", meaning="whoever asked was interrupted"),
    Transition(
        before="waiting",
        cause="admitted",
        after="held",
        event="precheck_hold",
        held=1,
        meaning="a settlement made room, and its turn has come",
    ),
    Transition(
        before="waiting",
        cause="no room",
        after="refused",
        meaning="the time to wait is over, the limit is spent meanwhile, or the process ends",
    ),
    Transition(
        before="waiting",
        cause="no ledger",
        after="refused",
        meaning="the ledger cannot be written any more",
    ),
    Transition(before="waiting", cause="left", after="given_up", meaning="whoever waited was interrupted"),
    Transition(
        before="held",
        cause="left",
        after="cancelled",
        event="cancel",
        held=-1,
        meaning="granted when nobody waited for it any more: nothing was sent",
    ),
    Transition(
        before="held",
        cause="billed",
        after="settled",
        event="commit",
        held=-1,
        spent="cost",
        meaning="an answer with usage; a cost above the hold counts in full",
    ),
    Transition(
        before="held",
        cause="outcome unknown",
        after="estimated",
        event="commit",
        held=-1,
        spent="estimate",
        meaning="cut off, timed out, or answered without usage: no refund",
    ),
    Transition(
        before="held",
        cause="not billed",
        after="cancelled",
        event="cancel",
        held=-1,
        meaning="nothing was sent, or the provider refused it",
    ),
    Transition(
        before="held",
        cause="repeated, not billed",
        after="held",
        event="retry",
        meaning="the SDK sends the request again, under the same hold",
    ),
    Transition(
        before="held",
        cause="repeated, perhaps billed",
        after="retried",
        event="retry",
        held=-1,
        spent="estimate",
        meaning="the SDK sends the request again: that attempt needs a hold of its own",
    ),
    Transition(
        before="held",
        cause="owner gone",
        after="estimated",
        event="commit",
        held=-1,
        spent="hold",
        meaning="its process was killed; settled by whoever opens the ledger next",
    ),
    Transition(
        before="held",
        cause="settlement failed",
        after="estimated",
        event="commit",
        held=-1,
        spent="hold",
        meaning="its settlement could not be made or stored",
    ),
    *(
        Transition(
            before=ended,
            cause="corrected",
            after=ended,
            event="adjust",
            spent="difference",
            meaning="a later price or the provider's bill; history stays as it is",
        )
        for ended in ("settled", "estimated")
    ),
    *(
        Transition(
            before=ended,
            cause="old enough",
            after="pruned",
            meaning="its events go; what they counted stays, in opening balances",
        )
        for ended in ("settled", "estimated", "retried", "cancelled")
    ),
)


def state_of(events: Sequence[LedgerEvent], *, is_open: bool) -> HoldState | None:
    """The state of a call's latest hold, from the events of the call in the ledger and whether that hold is open.

    None where the ledger has no event of it: not decided yet, refused, given up, or pruned. Raises ValueError for a
    hold that is neither open nor ended, which no ledger has.
    """
    holds = [_sequence(event) for event in events if event.event_type == "precheck_hold"]
    if not holds:
        return None
    return "held" if is_open else _ended(events, max(holds))


def _ended(events: Sequence[LedgerEvent], number: int) -> HoldState:
    """How a hold has ended. Cancels of holds that were left, and retries, are numbered from 1: 0 is the call's own."""
    later = {event.event_type: event for event in events if _sequence(event) > number and _ends_attempt(event)}
    if "cancel" in later:
        return "cancelled"
    if "retry" in later:
        return "retried"
    for event in events:
        if event.event_type == "commit":
            return "estimated" if event.estimated else "settled"
    if any(event.event_type == "cancel" for event in events):
        return "cancelled"
    raise ValueError(f"the hold {number} of call {events[0].call_id} is neither open nor ended")


def _ends_attempt(event: LedgerEvent) -> bool:
    return event.event_type == "cancel" or (event.event_type == "retry" and event.estimated)


def _sequence(event: LedgerEvent) -> int:
    return bytes.fromhex(event.event_id)[-1]


def hold_diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    befores = {row.before for row in TRANSITIONS}
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> asked",
        *(f"    {row.before} --> {row.after}: {row.cause}" for row in TRANSITIONS),
        *(f"    {end} --> [*]" for end in dict.fromkeys(row.after for row in TRANSITIONS if row.after not in befores)),
        "```",
    ]
    return "\n".join(lines) + "\n"


def hold_table() -> str:
    """The table in Markdown, for the documentation."""
    lines = [
        "| from | to | cause | event | balances | meaning |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row.before} | {row.after} | {row.cause} | {f'`{row.event}`' if row.event else ''} "
            f"| {_balances(row)} | {row.meaning} |"
            for row in TRANSITIONS
        ),
    ]
    return "\n".join(lines) + "\n"


def _balances(row: Transition) -> str:
    held = {1: ["held + amount"], 0: [], -1: ["held - amount"]}[row.held]
    return ", ".join([*held, *([f"spent + {row.spent}"] if row.spent else [])])
