"""An event on its way into the ledger: bytes and whole nano-USD, as the store keeps them, but nothing encoded yet.

Whoever makes a call pays for what is done here and in the journal; the rest is the writer's.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ._events import SCHEMA_VERSION, SPENDING, Charge, EventType, LedgerEvent, Status
from ._money import to_nano, to_usd

_NOTHING: Mapping[str, Any] = {}  # no MappingProxyType: a plain dict is what orjson knows by itself


class Posting(NamedTuple):
    """A LedgerEvent without its offset: ids are bytes, money is in nano-USD; the fields are those of its row."""

    event_id: bytes
    event_type: EventType
    call_id: bytes
    timestamp: float
    status: Status = "ok"
    provider: str | None = None
    model: str | None = None
    operation: str | None = None
    usage: Mapping[str, float] = _NOTHING
    cost_est_nusd: int | None = None
    cost_actual_nusd: int | None = None
    timing: Mapping[str, float] = _NOTHING
    http_status: int | None = None
    category: str | None = None
    trace_id: bytes | None = None
    span_id: bytes | None = None
    profile_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    model_profile: str | None = None
    tags: Mapping[str, str] = _NOTHING
    records: tuple[Mapping[str, Any], ...] = ()
    charges: tuple[Charge, ...] = ()
    estimated: bool = False
    reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    attempts: int = 1
    schema_version: int = SCHEMA_VERSION
    response_id: str | None = None
    cost_source: str | None = None
    cost_rates: Mapping[str, Any] | None = None

    @property
    def spend_nusd(self) -> int | None:
        """What it adds to spend, in nano-USD; see `LedgerEvent.spend_usd`."""
        if self.event_type not in SPENDING:
            return None
        return self.cost_est_nusd if self.cost_actual_nusd is None and self.estimated else self.cost_actual_nusd


def posting_of(event: LedgerEvent) -> Posting:
    """The posting of an event; money is rounded half-even to nano-USD."""
    return Posting(
        event_id=bytes.fromhex(event.event_id),
        event_type=event.event_type,
        call_id=bytes.fromhex(event.call_id),
        timestamp=event.timestamp,
        status=event.status,
        provider=event.provider,
        model=event.model,
        operation=event.operation,
        usage=event.usage,
        cost_est_nusd=_nano(event.cost_est_usd),
        cost_actual_nusd=_nano(event.cost_actual_usd),
        timing=event.timing,
        http_status=event.http_status,
        category=event.category,
        trace_id=_blob(event.trace_id),
        span_id=_blob(event.span_id),
        profile_id=event.profile_id,
        user_id=event.user_id,
        session_id=event.session_id,
        run_id=event.run_id,
        model_profile=event.model_profile,
        tags=event.tags,
        records=event.records,
        charges=event.charges,
        estimated=event.estimated,
        reason=event.reason,
        error_type=event.error_type,
        error_message=event.error_message,
        attempts=event.attempts,
        schema_version=event.schema_version,
        response_id=event.response_id,
        cost_source=event.cost_source,
        cost_rates=event.cost_rates,
    )


def event_of(posting: Posting, offset: int | None = None) -> LedgerEvent:
    """The event of a posting, with its offset once it is stored."""
    return LedgerEvent(
        offset=offset,
        event_id=posting.event_id.hex(),
        event_type=posting.event_type,
        call_id=posting.call_id.hex(),
        timestamp=posting.timestamp,
        status=posting.status,
        provider=posting.provider,
        model=posting.model,
        operation=posting.operation,
        usage=posting.usage,
        cost_est_usd=_usd(posting.cost_est_nusd),
        cost_actual_usd=_usd(posting.cost_actual_nusd),
        cost_source=posting.cost_source,
        cost_rates=posting.cost_rates,
        timing=posting.timing,
        http_status=posting.http_status,
        category=posting.category,
        trace_id=_hex(posting.trace_id),
        span_id=_hex(posting.span_id),
        profile_id=posting.profile_id,
        user_id=posting.user_id,
        session_id=posting.session_id,
        run_id=posting.run_id,
        model_profile=posting.model_profile,
        tags=posting.tags,
        records=posting.records,
        charges=posting.charges,
        estimated=posting.estimated,
        reason=posting.reason,
        error_type=posting.error_type,
        error_message=posting.error_message,
        attempts=posting.attempts,
        schema_version=posting.schema_version,
        response_id=posting.response_id,
    )


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else to_nano(usd)


def _usd(nano: int | None) -> Decimal | None:
    return None if nano is None else to_usd(nano)


def _blob(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text else None


def _hex(blob: bytes | None) -> str | None:
    return blob.hex() if blob else None
