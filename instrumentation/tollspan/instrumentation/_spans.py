"""The span of a call: one more view of its record."""

from functools import lru_cache
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, StatusCode

from tollspan.exporter import CallRecord
from tollspan.ledger import NANO_PER_USD, event_id_for

from . import _semconv as sc
from ._providers import Origin
from ._readers import ResponseFacts

SCOPE = "tollspan.instrumentation"
_VERSION = version("tollspan")


@lru_cache(maxsize=8)
def _tracer(provider: trace.TracerProvider) -> trace.Tracer:
    return provider.get_tracer(SCOPE, _VERSION)


def start_span(provider: trace.TracerProvider, record: CallRecord, attributes: dict[str, Any], origin: Origin) -> Span:
    """Start the span of a call; where the application has suppressed instrumentation, one that nobody sees."""
    if not is_instrumentation_enabled():
        return trace.INVALID_SPAN
    start = {
        sc.OPERATION_NAME: record.operation,
        sc.PROVIDER_NAME: origin.provider,
        sc.SERVER_ADDRESS: origin.host,
        sc.EVENT_ID: event_id_for(record.call_id, "commit").hex(),
        **attributes,
    }
    name = record.operation
    if record.request_model:
        start[sc.REQUEST_MODEL] = record.request_model
        name = f"{name} {record.request_model}"  # by the conventions
    if origin.port is not None:
        start[sc.SERVER_PORT] = origin.port
    span = _tracer(provider).start_span(name, kind=SpanKind.CLIENT, attributes=start)
    context = span.get_span_context()
    record.trace_id, record.span_id = context.trace_id, context.span_id
    return span


def describe_end(span: Span, record: CallRecord, facts: ResponseFacts | None, *, with_cost: bool) -> None:
    """Put what is known at the end on the span. The caller ends it."""
    if not span.is_recording():
        return
    end: dict[str, Any] = {sc.USAGE[key]: value for key, value in (record.usage or {}).items() if key in sc.USAGE}
    if facts is not None:
        end |= _response(facts)
    if record.ttft_ms is not None:
        end[sc.RESPONSE_TIME_TO_FIRST_CHUNK] = record.ttft_ms / 1000
    if record.attempts > 1:
        end[sc.ATTEMPTS] = record.attempts
    if record.estimated:
        end[sc.COST_ESTIMATED] = True
    if record.reason:
        end[sc.COST_REASON] = record.reason
    if with_cost:
        end |= _cost(record)
    if record.status == "error":
        end[sc.ERROR_TYPE] = record.error_type or "_OTHER"
        span.set_status(StatusCode.ERROR, record.error_message)
    span.set_attributes(end)


def _response(facts: ResponseFacts) -> dict[str, Any]:
    end: dict[str, Any] = {}
    if facts.model:
        end[sc.RESPONSE_MODEL] = facts.model
    if facts.response_id:
        end[sc.RESPONSE_ID] = facts.response_id
    if facts.finish_reasons:
        end[sc.RESPONSE_FINISH_REASONS] = facts.finish_reasons
    return end


def _cost(record: CallRecord) -> dict[str, Any]:
    nano = record.cost if record.cost is not None else record.estimate
    if nano is None or record.outcome == "unbilled":
        return {}
    source = "provider" if record.cost_source == "provider" else "local"
    return {sc.COST_AMOUNT: nano / NANO_PER_USD, sc.COST_CURRENCY: "USD", sc.COST_SOURCE: source}
