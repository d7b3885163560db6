"""One call to a model, as the span of another instrumentation tells it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One call to a model. Instants are in epoch seconds, `cost_usd` is the text of an amount in USD.

    `usage` has the ledger's meaning: totals count every token, the other token keys are parts of them. It is None where
    the span tells none. `answer_follows`: this span is of the request only, and another one will tell the answer.
    """

    dialect: str
    scope: str
    trace_id: int
    span_id: int
    started: float
    ended: float
    operation: str
    provider: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    service_tier: str | None = None
    usage: Mapping[str, float] | None = None
    cost_usd: str | None = None
    user: str | None = None
    session: str | None = None
    ttft_ms: float | None = None
    failed: bool = False
    error_type: str | None = None
    http_status: int | None = None
    answer_follows: bool = False
