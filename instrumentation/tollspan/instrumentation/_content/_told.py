"""How content is told: as attributes of a span, in JSON, and as an event of the conventions, in structures."""

from functools import lru_cache
from typing import Any

from opentelemetry._logs import Logger, LoggerProvider, get_logger_provider
from opentelemetry.trace import Span, set_span_in_context

from tollspan.exporter import CallRecord
from tollspan.instrumentation import _semconv as sc
from tollspan.instrumentation._content._fitted import as_json, fitted
from tollspan.instrumentation._content._messages import input_messages, output_messages, system_instructions
from tollspan.instrumentation._content._streams import joined
from tollspan.instrumentation._readers import _sse as sse

_SCOPE = "tollspan.instrumentation"
_EVENT = "gen_ai.client.inference.operation.details"

Content = dict[str, list[Any]]
"""By the name of the attribute; what nothing was said of is not there."""


def content(asked: bytes | None, received: bytes, *, stream: bool, limit: int) -> Content:
    """What was asked and answered, each in at most `limit` characters of JSON."""
    request = sse.parsed(asked or b"")
    body = request if isinstance(request, dict) else {}
    answer = joined(received) if stream and not sse.is_whole(received) else sse.parsed_object(received)
    found = {
        sc.SYSTEM_INSTRUCTIONS: fitted(system_instructions(body), limit),
        sc.INPUT_MESSAGES: fitted(input_messages(body), limit, newest_first=True),
        sc.OUTPUT_MESSAGES: fitted(output_messages(answer), limit),
    }
    return {name: items for name, items in found.items() if items}


def on_span(span: Span, content: Content) -> None:
    """Put it on a span that has not ended."""
    span.set_attributes({name: as_json(items) for name, items in content.items()})


def as_event(span: Span, record: CallRecord, content: Content) -> None:
    """Emit it as an event that belongs to the span."""
    known: dict[str, Any] = {
        sc.OPERATION_NAME: record.operation,
        sc.PROVIDER_NAME: record.provider,
        sc.REQUEST_MODEL: record.request_model,
        sc.RESPONSE_MODEL: record.response_model,
        sc.RESPONSE_ID: record.response_id,
        sc.ERROR_TYPE: record.error_type,
        **{sc.USAGE[key]: value for key, value in (record.usage or {}).items() if key in sc.USAGE},
    }
    _logger(get_logger_provider()).emit(
        event_name=_EVENT,
        context=set_span_in_context(span),
        attributes={**{key: value for key, value in known.items() if value is not None}, **content},
    )


@lru_cache(maxsize=8)
def _logger(provider: LoggerProvider) -> Logger:
    return provider.get_logger(_SCOPE)
