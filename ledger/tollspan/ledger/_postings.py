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


IDS = ("event_id", "call_id", "trace_id", "span_id")
COSTS = {"cost_est_nusd": "cost_est_usd", "cost_actual_nusd": "cost_actual_usd"}
_ALIKE = tuple(name for name in Posting._fields if name not in (*IDS, *COSTS))


def posting_of(event: LedgerEvent) -> Posting:
    """The posting of an event; money is rounded half-even to nano-USD."""
    values: dict[str, Any] = {name: getattr(event, name) for name in _ALIKE}
    values |= {name: _blob(getattr(event, name)) for name in IDS}
    values |= {nano: _nano(getattr(event, usd)) for nano, usd in COSTS.items()}
    return Posting(**values)


def event_of(posting: Posting, offset: int | None = None) -> LedgerEvent:
    """The event of a posting, with its offset once it is stored."""
    values: dict[str, Any] = {name: getattr(posting, name) for name in _ALIKE}
    values |= {name: hex_of(getattr(posting, name)) for name in IDS}
    values |= {usd: usd_of(getattr(posting, nano)) for nano, usd in COSTS.items()}
    return LedgerEvent(offset=offset, **values)


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else to_nano(usd)


def usd_of(nano: int | None) -> Decimal | None:
    """USD of nano-USD, where there are any."""
    return None if nano is None else to_usd(nano)


def _blob(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text else None


def hex_of(blob: bytes | None) -> str | None:
    """An id as text, where there is one."""
    return blob.hex() if blob else None
