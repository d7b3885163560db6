"""Reading a span: which dialect it speaks, and what it says."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from ._documents import id_in, parse
from ._inference import Inference
from ._marks import attributes_of, is_marked
from ._tables import DIALECTS, PROVIDERS, Dialect, Names
from ._usage import number, usage_of

_NANO = 1e9


def operation_of(attributes: Mapping[str, Any]) -> str | None:
    """The operation of the one call to a model that a span stands for; None for every other span."""
    dialect = _dialect(attributes)
    return _operation(dialect, attributes) if dialect is not None else None


def read(span: ReadableSpan) -> Inference | None:
    """What an ended span says about a call to a model; None where it is not the span of one."""
    attributes = attributes_of(span)
    dialect = _dialect(attributes)
    operation = _operation(dialect, attributes) if dialect is not None else None
    if dialect is None or operation is None:
        return None
    return _inference(dialect, operation, span, attributes)


def _inference(dialect: Dialect, operation: str, span: ReadableSpan, attributes: Mapping[str, Any]) -> Inference:
    documents = [parse(attributes[name]) for name in dialect.documents if name in attributes]
    provider = (_text(attributes, dialect.provider) or "").lower()
    usage = usage_of(dialect, attributes, documents, provider)
    error_type = _error_type(dialect, span, attributes)
    failed = error_type is not None or _has_failed(dialect, span, attributes)
    return Inference(
        dialect=dialect.name,
        scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        trace_id=span.context.trace_id,
        span_id=span.context.span_id,
        started=(span.start_time or 0) / _NANO - (_number(attributes, dialect.lasted_s) or 0),
        ended=(span.end_time or 0) / _NANO,
        operation=operation,
        provider=PROVIDERS.get(provider, provider) or None,
        request_model=_text(attributes, dialect.request_model),
        response_model=_text(attributes, dialect.response_model),
        response_id=_response_id(dialect, attributes, documents),
        service_tier=_text(attributes, dialect.service_tier),
        usage=usage,
        cost_usd=_cost(dialect, attributes),
        user=_text(attributes, dialect.user),
        session=_text(attributes, dialect.session),
        ttft_ms=_ttft_ms(dialect, span, attributes),
        failed=failed,
        error_type=error_type,
        http_status=_status(dialect, attributes),
        answer_follows=not failed and usage is None and _announces(dialect, attributes),
    )


def _has_failed(dialect: Dialect, span: ReadableSpan, attributes: Mapping[str, Any]) -> bool:
    unanswered = bool(dialect.answered) and not any(name in attributes for name in dialect.answered)
    return unanswered or span.status.status_code is StatusCode.ERROR


def _response_id(dialect: Dialect, attributes: Mapping[str, Any], documents: Iterable[Mapping[str, Any]]) -> str | None:
    """The provider's id of the answer, by which others know it, too."""
    found = _text(attributes, dialect.response_id) or next(filter(None, map(id_in, documents)), None)
    if found is None or dialect.own_ids is None:
        return found
    return None if dialect.own_ids.fullmatch(found) or found == attributes[dialect.marker] else found


def _announces(dialect: Dialect, attributes: Mapping[str, Any]) -> bool:
    follows = dialect.answer_follows
    return follows is not None and attributes.get(follows[0]) == follows[1]


def _dialect(attributes: Mapping[str, Any]) -> Dialect | None:
    if not is_marked(attributes):
        return None
    return next((dialect for dialect in DIALECTS if _speaks(attributes, dialect)), None)


def _speaks(attributes: Mapping[str, Any], dialect: Dialect) -> bool:
    found = attributes.get(dialect.marker)
    return found is not None and dialect.marked in (None, found)


def _operation(dialect: Dialect, attributes: Mapping[str, Any]) -> str | None:
    named = _text(attributes, dialect.operation)
    if named is not None:
        operation = dialect.operations.get(named)
        return None if operation is not None and _is_from_cache(dialect, attributes) else operation
    # Older names know no operation. An agent's or a tool's span has no usage of its own.
    has_usage = any(name in attributes for names in dialect.usage.values() for name in names)
    is_step = "traceloop.span.kind" in attributes or "gen_ai.tool.name" in attributes
    return "chat" if has_usage and not is_step and _text(attributes, dialect.request_model) else None


def _is_from_cache(dialect: Dialect, attributes: Mapping[str, Any]) -> bool:
    if dialect.from_cache is None:
        return False
    attribute, key = dialect.from_cache
    return parse(attributes.get(attribute)).get(key) is not None


def _values(attributes: Mapping[str, Any], names: Names) -> Iterator[Any]:
    return (attributes[name] for name in names if name in attributes)


def _text(attributes: Mapping[str, Any], names: Names) -> str | None:
    return next((value for value in _values(attributes, names) if value and isinstance(value, str)), None)


def _number(attributes: Mapping[str, Any], names: Names) -> float | None:
    return next((n for value in _values(attributes, names) if (n := number(value)) is not None), None)


def _status(dialect: Dialect, attributes: Mapping[str, Any]) -> int | None:
    status = _number(attributes, dialect.http_status)
    return None if status is None else int(status)


def _cost(dialect: Dialect, attributes: Mapping[str, Any]) -> str | None:
    """A cost in USD that the span states. A 0 says nothing: instrumentations without a price list write it."""
    if (_text(attributes, dialect.currency) or "USD").upper() != "USD":
        return None
    for value in _values(attributes, dialect.cost):
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            continue
        if amount.is_finite() and amount > 0:
            return str(amount)
    return None


def _ttft_ms(dialect: Dialect, span: ReadableSpan, attributes: Mapping[str, Any]) -> float | None:
    seconds = _number(attributes, dialect.ttft_s)
    if seconds is not None:
        return seconds * 1000
    if not dialect.first_token or span.start_time is None:
        return None
    first = next((event for event in span.events if event.name in dialect.first_token), None)
    return None if first is None else (first.timestamp - span.start_time) / 1e6


def _error_type(dialect: Dialect, span: ReadableSpan, attributes: Mapping[str, Any]) -> str | None:
    """The exception's name without its module, or what the span calls the error."""
    named = _text(attributes, dialect.error_type)
    if named is None and span.status.status_code is StatusCode.ERROR:
        raised = (event.attributes or {} for event in span.events if event.name == "exception")
        named = next((str(name) for event in raised if (name := event.get("exception.type"))), None)
    return named and named.rpartition(".")[2]
