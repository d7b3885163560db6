"""What the ledger is made of: one immutable event for each thing that happened to a call."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, get_args

SCHEMA_VERSION = 1

EventType = Literal["precheck_hold", "commit", "cancel", "adjust", "wait", "retry", "exposure"]
Status = Literal["ok", "error", "cancelled"]

_TYPE_CODES: dict[str, int] = {name: code for code, name in enumerate(get_args(EventType), start=1)}
_STATUSES = frozenset(get_args(Status))

SPENDING: frozenset[str] = frozenset({"commit", "adjust", "retry"})
"""The events that change what a balance has spent."""

SERVICE_TIER = "service_tier"
"""Where `cost_rates` names the tier of a call that was not billed as one of the standard tier."""

CALL_ID_BYTES = 14
EVENT_ID_BYTES = 16


def call_id_prefix(started_ms: int) -> bytes:
    """The first 6 bytes of the ids of calls that begin at an instant in epoch milliseconds, and of their events."""
    return min(max(started_ms, 0), 2**48 - 1).to_bytes(6, "big")


def new_call_id(now: float | None = None) -> bytes:
    """A fresh call id: 6 bytes of epoch milliseconds, so that ids sort by time, then 8 random bytes."""
    ms = int((time.time() if now is None else now) * 1000)
    return call_id_prefix(ms) + os.urandom(8)


def event_id_for(call_id: bytes, event_type: EventType, sequence: int = 0) -> bytes:
    """The id of an event: its call, its type, and the how-manieth of that type in the call (0 to 255).

    The same event always gets the same id, so a replay or a retry meets the store's UNIQUE constraint and is harmless.
    """
    return call_id + bytes((_TYPE_CODES[event_type], sequence))


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A balance that an event counts in: one budget, one value of its `each` key, one window.

    `amount` is in the unit of the budget: nano-USD, tokens or requests. `window_start` is in epoch seconds; `total`: 0.
    """

    budget: str
    scope: str
    window_start: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent:
    """One event of the append-only ledger.

    Money is Decimal USD, `timestamp` in epoch seconds (UTC), `timing` in milliseconds (`ttft_ms`, `total_ms`). `usage`
    follows the OpenTelemetry meaning: `tokens_in` and `tokens_out` count every token, and `tokens_cache_read`,
    `tokens_cache_write`, `tokens_reasoning` are parts of them. A cost of None means unpriced, and `reason` says why; it
    is never a silent 0. `cost_rates` are the prices used, and under `service_tier` a tier other than the standard one.
    `event_id` and `call_id` are hexadecimal. `offset` is None until the event is stored. `response_id` is
    the provider's, kept only where the answer can be fetched again.
    """

    event_type: EventType
    event_id: str = ""
    call_id: str = ""
    offset: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    provider: str | None = None
    model: str | None = None
    operation: str | None = None
    usage: Mapping[str, float] = field(default_factory=dict)
    cost_est_usd: Decimal | None = None
    cost_actual_usd: Decimal | None = None
    cost_source: str | None = None
    cost_rates: Mapping[str, Any] | None = None
    status: Status = "ok"
    timing: Mapping[str, float] = field(default_factory=dict)
    http_status: int | None = None
    category: str | None = None
    timestamp: float = 0.0
    profile_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    model_profile: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    records: tuple[Mapping[str, Any], ...] = ()
    charges: tuple[Charge, ...] = ()
    estimated: bool = False
    reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    attempts: int = 1
    schema_version: int = SCHEMA_VERSION
    response_id: str | None = None

    def __post_init__(self) -> None:
        if self.event_type not in _TYPE_CODES:
            raise ValueError(f"event_type {self.event_type!r} is none of {', '.join(_TYPE_CODES)}")
        if self.status not in _STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(sorted(_STATUSES))}")
        if not self.timestamp:
            object.__setattr__(self, "timestamp", time.time())
        if not self.call_id:
            object.__setattr__(self, "call_id", new_call_id(self.timestamp).hex())
        if not self.event_id:
            object.__setattr__(self, "event_id", event_id_for(bytes.fromhex(self.call_id), self.event_type).hex())

    @property
    def spend_usd(self) -> Decimal | None:
        """What this event adds to spend: the actual cost, the estimate where that is all we will ever know, or None."""
        if self.event_type not in SPENDING:
            return None
        return self.cost_est_usd if self.cost_actual_usd is None and self.estimated else self.cost_actual_usd
