"""The adjusts that bring days of a model to what is billed for them.

The difference of a day and a model is of no call: it has an id of its own, made of the day, the provider and the model,
and counts at noon UTC of its day. What the ledger has already been brought to is part of what it has: the same bill,
read again, adds nothing, and a later one adds what it says more.

The ledger's own balance follows, and so do budgets of which it is sure that they count just those calls: those that
match by nothing but provider, model and operation, over days, weeks, months or in total, in a window that holds the
whole day, and in which every call of the row was counted. Whose calls the missing ones are, nobody knows: budgets of
users, sessions or tags stay as they are.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import orjson

from tollspan.ledger._batch import Key, key_of
from tollspan.ledger._definitions import BudgetDefinition
from tollspan.ledger._events import Charge, LedgerEvent, call_id_prefix
from tollspan.ledger._money import to_nano
from tollspan.ledger._queries import known_budgets, rival_budgets
from tollspan.ledger._reconcile._bill import BillError
from tollspan.ledger._reconcile._compare import Reconciled, ReconciledRow
from tollspan.ledger._reconcile._counted import DAY_S, start_of
from tollspan.ledger._rows import charges_from, from_row
from tollspan.ledger._runs import OF_A_BILL, adjust_rows, begin_run, end_run, next_adjust_id, of_run, write_adjusts
from tollspan.ledger._store import SQLiteStore
from tollspan.ledger._writer import Writer

_NOON_S = 43_200
_PIECE = 500
_PLAIN = frozenset({"provider", "model", "operation"})
_SPELLED = {"aws": "aws.bedrock"}
_CHARGES = """
    SELECT charges FROM event
    WHERE event_id >= ? AND event_id < ? AND event_type IN ('commit', 'retry') AND provider IS ? AND model IS ?
"""


def settle(store: SQLiteStore, writer: Writer, found: Reconciled, *, one_sided: bool) -> None:
    """Write an adjust for each row of a model that differs, and note in `found` what was done and what was left.

    Raises BillError for a bill that states no costs of models, and LedgerUnavailable.
    """
    if found.measure != "usd":
        raise BillError(f"an export of {found.format} counts tokens and states no costs; adjust by one of costs")
    if any(reason.code == "no_models" for reason in found.reasons):
        raise BillError("the export names no models, so there is no day of a model to adjust; group it by model")
    terms = {"reconcile": [[row.day, row.model, str(row.billed)] for row in found.rows if row.billed]}
    chosen = [row for row in found.rows if _chosen(row, found, one_sided=one_sided)]
    sure = _sure_budgets(store) if chosen else {}
    for start in range(0, len(chosen), _PIECE):
        if found.run is None:
            found.run, _ = begin_run(store, writer, terms)
        _settle_piece(store, writer, found, chosen[start : start + _PIECE], sure)
    ended = end_run(store, writer, terms)
    found.run = found.run or ended  # it was interrupted when all was written


def _settle_piece(
    store: SQLiteStore,
    writer: Writer,
    found: Reconciled,
    chosen: Sequence[ReconciledRow],
    sure: Mapping[str, BudgetDefinition],
) -> None:
    made = [_adjust(store, row, found, sure) for row in chosen]
    adjusts = [adjust for adjust in made if adjust is not None]
    conflicts = write_adjusts(store, writer, adjusts)
    found.adjusted += len(adjusts) - len(conflicts)
    for why, count in (
        ("adjusted as often as a row can be", len(made) - len(adjusts)),
        ("somebody else adjusted it at this moment", len(conflicts)),
    ):
        if count:
            found.left[why] = count + found.left.get(why, 0)


def _chosen(row: ReconciledRow, found: Reconciled, *, one_sided: bool) -> bool:
    if not row.difference or row.sides == "other":
        return False
    if not row.is_whole:
        _leave(found, "the day is not there as a whole")
    elif row.sides != "both" and not one_sided:
        _leave(found, "only one side names the model (--map, or --one-sided)")
    else:
        return True
    return False


def _leave(found: Reconciled, why: str) -> None:
    found.left[why] = found.left.get(why, 0) + 1


def _adjust(
    store: SQLiteStore, row: ReconciledRow, found: Reconciled, sure: Mapping[str, BudgetDefinition]
) -> LedgerEvent | None:
    day, run = start_of(date.fromisoformat(row.day)), str(found.run)
    call_id = call_id_prefix((day + _NOON_S) * 1000) + _digest(found.provider, row.model)
    before = [from_row(known) for known in adjust_rows(store, call_id)]
    event_id = next_adjust_id(call_id, before)
    if event_id is None:
        return None
    provider, model = (
        next(iter(row.names), None) or _spelled(before) or (_SPELLED.get(found.provider, found.provider), row.model)
    )
    nano = to_nano(row.difference)
    keys = _sure_keys(store, row, day, sure)
    adjust = LedgerEvent(
        event_type="adjust",
        event_id=event_id,
        call_id=call_id.hex(),
        provider=provider,
        model=model,
        operation=OF_A_BILL,
        cost_actual_usd=row.difference,
        cost_source="provider",
        charges=tuple(Charge(budget=b, scope=s, window_start=w, amount=nano) for b, s, w in keys),
        reason=f"{found.format}: {row.billed:.9f} USD billed, {row.counted:.9f} counted on {row.day}, run {run}",
    )
    return of_run(adjust, "reconcile", run)


def _spelled(before: Sequence[LedgerEvent]) -> tuple[str | None, str | None] | None:
    return (before[-1].provider, before[-1].model) if before else None


def _digest(provider: str, model: str) -> bytes:
    return hashlib.blake2b(orjson.dumps([OF_A_BILL, provider, model]), digest_size=8).digest()


# ---- budgets


def _sure_budgets(store: SQLiteStore) -> dict[str, BudgetDefinition]:
    """The budgets, by account, that count by nothing but what a bill tells; by every definition of their name."""
    by_name: dict[str, list[BudgetDefinition]] = {}
    for known in (*known_budgets(store), *rival_budgets(store, since=0)):
        by_name.setdefault(known.definition.account, []).append(known.definition)
    return {account: own[0] for account, own in by_name.items() if all(map(_is_sure, own))}


def _is_sure(definition: BudgetDefinition) -> bool:
    if definition.unit != "USD" or definition.window is None:
        return False
    return {name for name, _ in _pairs(definition.match)} <= _PLAIN and definition.each in (None, *_PLAIN)


def _pairs(match: Any) -> Iterable[tuple[str, str]]:
    return match.items() if isinstance(match, Mapping) else match


def _sure_keys(store: SQLiteStore, row: ReconciledRow, day: int, sure: Mapping[str, BudgetDefinition]) -> list[Key]:
    """The balances of those budgets in which every call of the row is counted, whose window has the whole day."""
    if not sure:
        return []
    common: set[Key] | None = None
    for charges in _charges_of(store, row, day):
        keys = {key_of(charge) for charge in charges if charge.budget in sure}
        common = keys if common is None else common & keys
        if not common:
            break
    return sorted(key for key in common or () if _has_whole_day(sure[key[0]], key, day))


def _charges_of(store: SQLiteStore, row: ReconciledRow, day: int) -> Iterator[Sequence[Charge]]:
    bounds = (call_id_prefix(day * 1000), call_id_prefix((day + DAY_S) * 1000))
    for name in row.names:
        for found in store.query(_CHARGES, (*bounds, *name)):
            yield charges_from(found["charges"])


def _has_whole_day(definition: BudgetDefinition, key: Key, day: int) -> bool:
    window = definition.window
    return window is not None and window.start(day) == window.start(day + DAY_S - 1) == key[2]
