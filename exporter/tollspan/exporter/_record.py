"""The record of one call: filled by the instrumentation, turned into a ledger event by the exporter.

The span of a call is another view of the same record. The ledger is fed from the record and never from the span's
attributes, because a sampler may drop the span and a span limit may cut its attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tollspan.ledger import Limit, RateCard, Segment, Status

Outcome = Literal["billed", "unbilled", "unknown"]


@dataclass(frozen=True, slots=True)
class Held:
    """A hold on disk: its event id, what it holds in each of its limits (in the limit's unit), and in nano-USD."""

    hold_id: bytes
    limits: tuple["Limit", ...]
    amounts: tuple[int, ...]
    nano: int | None

    def amount(self, limit: "Limit") -> int:
        """What is held in one limit; 0 in one that was not asked."""
        return next((a for own, a in zip(self.limits, self.amounts, strict=True) if own.key == limit.key), 0)


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One call, from before its request to its settlement. Money in nano-USD, instants in epoch seconds.

    `limits` are the balances that the call counts in; `held` is the hold taken for the attempt now on the wire, and
    `begun` the journal's note of a call without a hold.
    `fetchable` is an answer that the provider keeps: it may be fetched again, and counts once.
    `service_tier` is the one that the answer names, or else the request.
    `cost` is the actual cost; `estimate` is what is booked where the actual cost cannot be known. `doubts` say why a
    cost may not be what the provider charges, such as a service tier without a price.
    """

    call_id: bytes
    started: float
    operation: str
    provider: str | None = None
    request_model: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)
    trace_id: int = 0
    span_id: int = 0
    limits: tuple["Limit", ...] = ()
    held: Held | None = None
    begun: "Segment | None" = None

    category: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    fetchable: bool = False
    usage: dict[str, float] | None = None
    outcome: Outcome = "billed"
    status: "Status" = "ok"
    cost: int | None = None
    estimate: int | None = None
    cost_source: str | None = None
    rate_card: "RateCard | None" = None
    doubts: tuple[str, ...] = ()
    service_tier: str | None = None
    reason: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    attempts: int = 1

    @property
    def model(self) -> str | None:
        """The model that answered, or else the one that was asked for."""
        return self.response_model or self.request_model

    @property
    def estimated(self) -> bool:
        """Whether the spend is an estimate: the call was, or may have been, billed, and the actual cost is unknown.

        Without a price the cost stays unknown, but where no usage came either, what was held stands for the tokens.
        """
        if self.outcome == "unbilled" or self.cost is not None:
            return False
        return self.estimate is not None or (self.usage is None and self.held is not None)
