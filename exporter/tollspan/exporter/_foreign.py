"""From what a foreign span says to the record of a call: what was billed, and what it has cost."""

from functools import partial
from typing import Protocol

from tollspan.ledger import Ledger, PriceBook, RateCard, Settings, Unpriced, call_id_prefix

from ._booking import book_stated, book_usage
from ._dialects import Inference
from ._record import CallRecord, Outcome

CATEGORY = "foreign"
"""The category of the events that are made from spans of other instrumentations."""

# Names of the SDKs for answers with a 4xx status: providers do not bill them.
_UNBILLED_ERRORS = frozenset(
    {
        "AuthenticationError",
        "BadRequestError",
        "ConflictError",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "UnprocessableEntityError",
    }
)
_MAYBE_BILLED_STATUSES = frozenset({408, 499})
_WITHOUT_USAGE = "the span carried no usage"
_UNKNOWN = "nobody can tell whether it was billed"


class Books(Protocol):
    """What an event is made with."""

    @property
    def ledger(self) -> Ledger:
        """Where it goes."""

    @property
    def prices(self) -> PriceBook:
        """What it is priced by."""

    @property
    def settings(self) -> Settings:
        """Whose profile and tags it has."""


def record_of(said: Inference, settings: Settings) -> CallRecord:
    """The record of a foreign call, still without its cost. Its id follows from the span, so a repetition is harmless.

    A failed call without usage is unbilled where its error says so, as a 4xx does. Any other failure is unknown: it is
    committed without a cost, because no request is there whose price could bound it.
    """
    return CallRecord(
        call_id=call_id_prefix(int(said.started * 1000)) + said.span_id.to_bytes(8, "big"),
        started=said.started,
        operation=said.operation,
        provider=said.provider,
        request_model=said.request_model,
        response_model=said.response_model,
        response_id=said.response_id,
        dimensions=_dimensions(said, settings),
        trace_id=said.trace_id,
        span_id=said.span_id,
        category=CATEGORY,
        usage=dict(said.usage) if said.usage is not None else None,
        outcome=_outcome(said),
        status="error" if said.failed else "ok",
        error_type=said.error_type or ("_OTHER" if said.failed else None),
        http_status=said.http_status,
        ttft_ms=said.ttft_ms,
        total_ms=(said.ended - said.started) * 1000,
    )


def book(record: CallRecord, said: Inference, prices: PriceBook) -> None:
    """Put the cost into the record, or say why there is none.

    It is that of the usage at a price of the user's own, or else what the span states, or else that of the usage.
    """
    if record.outcome == "unbilled":
        return
    record.service_tier = said.service_tier
    if said.cost_usd is not None:
        book_stated(record, said.cost_usd, "span", partial(_price_of, record, said, prices))
    elif record.usage is not None:
        book_usage(record, partial(_price_of, record, said, prices))
    else:
        reason = _UNKNOWN if record.outcome == "unknown" else _WITHOUT_USAGE
        record.cost_source, record.reason = "unpriced", reason


def _price_of(record: CallRecord, said: Inference, prices: PriceBook, model: str | None) -> RateCard | Unpriced:
    return prices.resolve(provider=record.provider, model=model, at=record.started, service_tier=said.service_tier)


def _outcome(said: Inference) -> Outcome:
    if not said.failed or said.usage is not None or said.cost_usd is not None:
        return "billed"
    status = said.http_status
    if status is None and said.error_type is not None and said.error_type.isdecimal():
        status = int(said.error_type)
    if status is not None:
        refused = 400 <= status < 500 and status not in _MAYBE_BILLED_STATUSES  # noqa: PLR2004 - HTTP: 4xx
        return "unbilled" if refused else "unknown"
    return "unbilled" if said.error_type in _UNBILLED_ERRORS else "unknown"


def _dimensions(said: Inference, settings: Settings) -> dict[str, str]:
    """The configured profile and tags; user and session as the span names them."""
    named = {"profile": settings.profile, "user": said.user, "session": said.session}
    tags = {f"tag:{key}": value for key, value in settings.tags.items()}
    return tags | {key: value for key, value in named.items() if value is not None}
