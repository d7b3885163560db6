"""From the record of a call to events of the ledger: pure, and the only place where that is done."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from tollspan.ledger import (
    SERVICE_TIER,
    STANDARD_TIER,
    Charge,
    Entry,
    EventType,
    Limit,
    Posting,
    charge_of,
    event_id_for,
    tier_of,
    tokens_of,
)

from ._record import CallRecord, Held


def settlement(record: CallRecord) -> Entry:
    """The event that ends a call, and with it its hold."""
    return Entry(_end(record), record.held.hold_id if record.held else None, record.begun)


def _end(record: CallRecord) -> Posting:
    """A commit, or a cancel where nothing was billed."""
    billed, estimated = record.outcome != "unbilled", record.estimated
    return Posting(
        **_identity(record, "commit" if billed else "cancel", 0),
        usage=record.usage or {},
        cost_est_nusd=record.held.nano if record.held and not estimated else record.estimate,
        cost_actual_nusd=record.cost if billed else None,
        cost_source=record.cost_source,
        cost_rates=_rates(record),
        status=record.status,
        timing=_timing(record),
        http_status=record.http_status,
        category=record.category,
        charges=_charges(record) if billed else (),
        estimated=estimated,
        reason=record.reason,
        error_type=record.error_type,
        error_message=record.error_message,
        attempts=record.attempts,
        response_id=record.response_id if record.fetchable else None,
        timestamp=record.started + (record.total_ms or 0) / 1000,
    )


def beginning(record: CallRecord, estimate: int | None) -> Posting:
    """What ends a call without a hold of which nobody hears again; `estimate` is the most it may cost, in nano-USD."""
    return Posting(
        **_identity(record, "commit", 0),
        cost_est_nusd=estimate,
        cost_source="unpriced" if estimate is None else "estimate",
        status="error",
        charges=tuple(charge_of(limit, _begun_amount(limit, estimate)) for limit in _spent(record)),
        estimated=estimate is not None,
        reason=None if estimate is not None else "its model has no price",
        timestamp=record.started,
    )


def _begun_amount(limit: Limit, estimate: int | None) -> int:
    amounts: dict[str, int] = {"requests": 1, "USD": estimate or 0}
    return amounts.get(limit.unit, 0)


def hold_event(record: CallRecord, held: Held, sequence: int) -> Posting:
    """The hold of an attempt, as an event, before its request leaves."""
    return Posting(
        **_identity(record, "precheck_hold", sequence),
        cost_est_nusd=held.nano,
        charges=held_charges(held),
        timestamp=time.time(),
    )


def withdrawal(record: CallRecord, sequence: int) -> Posting:
    """The cancel of a hold that was granted when nobody waited for it any more."""
    # The call itself may end with a cancel too, and that one is its number 0.
    return Posting(
        **_identity(record, "cancel", sequence + 1), status="cancelled", reason="gave up waiting", timestamp=time.time()
    )


def retry(record: CallRecord, sequence: int, *, billed: bool) -> Entry:
    """An attempt that the SDK repeats. Where it may have been billed, the estimate becomes spend, and its hold ends."""
    event = Posting(
        **_identity(record, "retry", sequence),
        cost_est_nusd=record.estimate if billed else None,
        charges=_charges(record) if billed else (),
        estimated=billed,
        status="error",
        reason="nobody can tell whether this attempt was billed" if billed else "this attempt was not billed",
        error_type=record.error_type,
        http_status=record.http_status,
        attempts=sequence + 1,
        timestamp=time.time(),
    )
    return Entry(event, record.held.hold_id if billed and record.held else None)


def wait_event(
    record: CallRecord,
    waited_ms: float,
    sequence: int = 0,
    *,
    reason: str = "budget",
    http_status: int | None = None,
) -> Posting:
    """An attempt that had to wait, by default in line for a budget, and for how long."""
    return Posting(
        **_identity(record, "wait", sequence),
        timing={"total_ms": round(waited_ms, 3)},
        reason=reason,
        http_status=http_status,
        timestamp=time.time(),
    )


def held_charges(held: Held) -> tuple[Charge, ...]:
    """What a hold holds, as charges."""
    return tuple(charge_of(limit, amount) for limit, amount in zip(held.limits, held.amounts, strict=True))


def _identity(record: CallRecord, event_type: EventType, sequence: int) -> dict[str, Any]:
    return {
        "event_type": event_type,
        "event_id": event_id_for(record.call_id, event_type, sequence),
        "call_id": record.call_id,
        "provider": record.provider,
        "model": record.model,
        "operation": record.operation,
        **_where(record),
    }


def _where(record: CallRecord) -> dict[str, Any]:
    """Who and what the call belongs to."""
    dimensions = record.dimensions
    where: dict[str, Any] = {"trace_id": None, "span_id": None}
    if record.trace_id:
        where["trace_id"], where["span_id"] = record.trace_id.to_bytes(16), record.span_id.to_bytes(8)
    if dimensions:
        where |= {column: dimensions[name] for name, column in _COLUMNS.items() if name in dimensions}
        where["tags"] = _tags(dimensions)
    return where


_COLUMNS = {"profile": "profile_id", "user": "user_id", "session": "session_id", "run": "run_id"}


def _tags(dimensions: Mapping[str, str]) -> dict[str, str]:
    """The tags; a team is one of them, because it has no column of its own."""
    tags = {key.removeprefix("tag:"): value for key, value in dimensions.items() if key.startswith("tag:")}
    return {"team": dimensions["team"], **tags} if "team" in dimensions else tags


def _charges(record: CallRecord) -> tuple[Charge, ...]:
    return tuple(_charge(record, limit) for limit in _spent(record))


def _spent(record: CallRecord) -> Iterator[Limit]:
    """The limits in which a call spends: how many calls there are at once is only held."""
    return (limit for limit in record.limits if limit.unit != "concurrent")


def _charge(record: CallRecord, limit: Limit) -> Charge:
    """What a billed call uses of one limit; what it held is the best that is known where the true amount is not."""
    fallback = record.held.amount(limit) if record.held else 0
    if limit.unit == "requests":
        return charge_of(limit, 1)
    if limit.unit == "tokens":
        return charge_of(limit, fallback if record.usage is None else tokens_of(record.usage))
    spend = record.cost if record.cost is not None else record.estimate
    return charge_of(limit, fallback if spend is None else spend)


def _timing(record: CallRecord) -> dict[str, float]:
    timing = {"total_ms": record.total_ms, "ttft_ms": record.ttft_ms}
    return {name: round(ms, 3) for name, ms in timing.items() if ms is not None}


def _rates(record: CallRecord) -> dict[str, Any] | None:
    """The prices used, the tier of what is not billed as everything is, and under `flags` what about it is in doubt.

    Without the tier nobody could price the call again.
    """
    rates = record.rate_card.rates() if record.rate_card else {}
    if (tier := tier_of(record.service_tier)) != STANDARD_TIER:
        rates[SERVICE_TIER] = tier
    if record.doubts:
        rates["flags"] = list(record.doubts)
    return rates or None
