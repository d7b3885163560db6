"""`tollspan adjust`: what a call has cost is corrected."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import click

from tollspan.ledger import (
    Ledger,
    LedgerConflict,
    LedgerEvent,
    QueryError,
    budget_of,
    format_usd,
    spend_of,
    to_nano,
    to_usd,
)

from ._ledgers import existing_ledger, settings_for
from ._render import CURRENCY, exact, money, plain, print_json
from ._today import number
from ._when import iso, shown

_LEAST_DIGITS = 8
_CALL_DIGITS, _TRACE_DIGITS = 28, 32
_SHOWN = 5
_MOST_USD = 9_000_000_000
_COST = re.compile(r"\$?\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?i:USD)?")


class AdjustError(QueryError):
    """A call cannot be corrected in this way; the text says what to write."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a call has cost so far: in all, and what of it is an estimate; None: it has no price."""

    usd: Decimal | None
    estimated: Decimal

    @classmethod
    def of(cls, events: Sequence[LedgerEvent]) -> "_Cost":
        """The cost that a call's events come to."""
        estimates = (event.spend_usd for event in events if event.spend_usd is not None and event.estimated)
        return cls(spend_of(events), sum(estimates, Decimal(0)))

    @property
    def text(self) -> str:
        """For people."""
        return "unpriced" if self.usd is None else money(self.usd, estimated=bool(self.estimated))


def adjust(url: str | None, call_id: str, cost: str, *, reason: str, as_json: bool) -> None:
    """Correct a call's cost, and show the call before and after."""
    usd, why = _usd(cost), reason.strip()
    if not why:
        raise AdjustError("--reason: it is empty; say where the cost is from, like --reason 'the invoice'")
    settings = settings_for(url)
    with existing_ledger(settings) as ledger:
        found = _found(ledger, call_id.strip().lower(), settings.timezone)
        before = ledger.events_for_call(found)
        added = _adjusted(ledger, found, usd, why, before)
        after = ledger.events_for_call(found) if added else before
    if as_json:
        print_json(_as_dict(before, after, added, settings.timezone))
    else:
        _print_text(before, after, added, settings.timezone)


# ---- what is asked


def _usd(text: str) -> Decimal:
    found = _COST.fullmatch(text.strip())
    if found is None:
        negative = " (a cost is 0 or more)" if text.strip().startswith("-") else ""
        raise AdjustError(f"{text!r} is no cost in USD{negative}; write what the call cost in all, like 0.0123")
    usd = Decimal(found[1])
    if usd > _MOST_USD:
        raise AdjustError(f"{text!r} is more than a ledger can count; write at most {_MOST_USD} USD")
    if to_usd(to_nano(usd)) != usd:
        raise AdjustError(f"{text!r} is not a multiple of 0.000000001 USD; round it, like {to_usd(to_nano(usd)):f}")
    return usd


def _found(ledger: Ledger, digits: str, timezone: str) -> str:
    """The one call that is meant."""
    if not re.fullmatch(r"[0-9a-f]+", digits) or not _LEAST_DIGITS <= len(digits) <= _TRACE_DIGITS:
        raise AdjustError(
            f"{digits!r} is no id of a call: write its hexadecimal digits, at least the first {_LEAST_DIGITS}, as "
            "`tollspan tail --json` shows them, or the 32 of a trace"
        )
    calls = _calls(ledger, digits)
    if len(calls) == 1:
        return calls[0]
    what = "in the trace" if len(digits) == _TRACE_DIGITS else "whose id begins with"
    if not calls:
        raise AdjustError(
            f"the ledger has no call {what} {digits}: it is another ledger's, was pruned, or is not written yet; see "
            "`tollspan tail --json`"
        )
    some = [ledger.events_for_call(call) for call in calls[:_SHOWN]]
    listed = "; ".join(f"{_call(events[-1], timezone)}, {_Cost.of(events).text}" for events in some)
    more = "; ..." if len(calls) > _SHOWN else ""
    raise AdjustError(f"more than one call {what} {digits}: {listed}{more}; write the id of one of them")


def _calls(ledger: Ledger, digits: str) -> list[str]:
    if len(digits) < _TRACE_DIGITS:
        return ledger.call_ids(digits, _SHOWN + 1)
    calls = list(dict.fromkeys(event.call_id for event in ledger.events_for_trace(digits)))
    return calls or ledger.call_ids(digits[:_CALL_DIGITS], 1)  # the id of an event is as long as that of a trace


def _adjusted(
    ledger: Ledger, call_id: str, usd: Decimal, reason: str, before: Sequence[LedgerEvent]
) -> list[LedgerEvent]:
    try:
        return ledger.adjust(call_id, usd, reason=reason)
    except KeyError:
        if any(event.event_type == "cancel" for event in before):
            why = "it was refused or cancelled, and nothing was billed for it"
        else:
            why = "it has not ended; wait for its end, or run `tollspan doctor` if its process has died"
        raise AdjustError(f"call {call_id} has no cost to correct: {why}") from None
    except LedgerConflict as error:
        raise AdjustError(f"{error}; somebody else may have corrected it just now: look, and run it again") from error


# ---- how it is shown


def _call(event: LedgerEvent, timezone: str) -> str:
    began = shown(_began(event), timezone, form="%Y-%m-%d %H:%M:%S")
    return f"{event.call_id} of {began} {timezone}, {plain(event.provider)}/{plain(event.model)}"


def _began(event: LedgerEvent) -> float:
    return int(event.call_id[:12], 16) / 1000


def _changes(added: Sequence[LedgerEvent]) -> Counter[tuple[str, str]]:
    """By how much a correction changes the spend of budgets, in nano-USD, by name and scope."""
    changes: Counter[tuple[str, str]] = Counter()
    for event in added:
        for charge in event.charges:
            changes[budget_of(charge.budget), charge.scope] += charge.amount
    return changes


def _print_text(
    before: Sequence[LedgerEvent], after: Sequence[LedgerEvent], added: Sequence[LedgerEvent], timezone: str
) -> None:
    old = _Cost.of(before)
    click.echo(f"call {_call(before[-1], timezone)}")
    if not added:
        already = "it costs that already" if old.usd is not None else "0 adds nothing to the spend of an unpriced call"
        click.echo(f"nothing to correct: {already}")
        return
    click.echo(f"before: {old.text}")
    click.echo(f"after:  {_Cost.of(after).text}")
    for (budget, scope), nano in _changes(added).items():
        where = f" ({plain(scope)})" if scope else ""
        click.echo(f"budget {plain(budget)!r}{where}: {'+' if nano > 0 else '-'}{format_usd(abs(nano))} spent")
    click.echo(f"{number(len(added), 'event')} added, with the reason; in force everywhere within a second")


def _as_dict(
    before: Sequence[LedgerEvent], after: Sequence[LedgerEvent], added: Sequence[LedgerEvent], timezone: str
) -> dict[str, Any]:
    event = before[-1]
    return {
        "call_id": event.call_id,
        "began": iso(_began(event), timezone),
        "provider": event.provider,
        "model": event.model,
        "currency": CURRENCY,
        "before": _costs(before),
        "after": _costs(after),
        "budgets": [
            {"name": budget, "scope": scope, "spent": exact(to_usd(nano))}
            for (budget, scope), nano in _changes(added).items()
        ],
        "events": [each.event_id for each in added],
    }


def _costs(events: Sequence[LedgerEvent]) -> dict[str, str | None]:
    cost = _Cost.of(events)
    return {"cost": exact(cost.usd), "cost_estimated": exact(cost.estimated)}
