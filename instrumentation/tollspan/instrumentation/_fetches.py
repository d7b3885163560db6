"""Answers that are fetched again: one that was made in the background, or that the provider keeps.

The usage of a background response comes with the poll that finds it complete. It counts once, however often it is
fetched, by whomever: the ledger decides that, by the provider's id of the answer.
"""

import re
from collections import OrderedDict
from functools import partial
from typing import Any

from opentelemetry.trace import get_current_span

from tollspan.exporter import CallRecord, coverage, pipeline, settlement
from tollspan.ledger import fetched_call_id, internal_errors

from ._billing import book
from ._call import dimensions_of_call
from ._providers import origin_of
from ._readers import OPENAI_RESPONSES, RequestFacts, ResponseFacts
from ._tap import Sink

_PATH = re.compile(r".*/responses/[^/]+/?")
_REMEMBERED = 4096
_counted: "OrderedDict[str, None]" = OrderedDict()
"""Answers of which this process has told the ledger: polls go on after that, and need not ask it again."""


def is_fetch(request: Any) -> bool:
    """Whether a request fetches an answer that its provider keeps."""
    return request.method == "GET" and _PATH.fullmatch(request.url.path) is not None


def overheard(request: Any, response: Any, tap: type[Any]) -> Any:
    """Count what a fetched answer has used, now or when its stream has been read. Gives the response to hand on."""
    with internal_errors:
        if response.status_code >= 400:  # noqa: PLR2004 - HTTP: from here on, errors
            return response
        coverage.cover(get_current_span())  # if others make spans of polls, these count no call
        if hasattr(response, "_content"):
            _count(request.url, response.content)
            return response
        sink = Sink(lambda _error, _left: None, lambda: None)
        sink.on_end = partial(_streamed, request.url, sink)
        sink.encoding = response.headers.get("content-encoding", sink.encoding)
        response.stream = tap(response.stream, sink, None)
    return response


def _streamed(url: Any, sink: Sink, _error: BaseException | None, _left: bool) -> None:
    with internal_errors:
        _count(url, sink.received)


def _count(url: Any, body: bytes) -> None:
    facts = OPENAI_RESPONSES.stream(body)  # it reads a whole answer as well
    if facts.usage is None or facts.response_id is None or facts.created is None or facts.response_id in _counted:
        return
    _counted[facts.response_id] = None
    while len(_counted) > _REMEMBERED:
        _counted.popitem(last=False)
    record = _record(url, facts, facts.response_id, facts.created)
    coverage.settled(coverage.opened(record), record)
    pipeline().ledger.writer.put(settlement(record))


def _record(url: Any, facts: ResponseFacts, response_id: str, created: float) -> CallRecord:
    line = pipeline()
    origin = origin_of(url, OPENAI_RESPONSES.vendor, line.settings.providers)
    record = CallRecord(
        call_id=fetched_call_id(response_id, created),
        started=created,
        operation=OPENAI_RESPONSES.operation,
        provider=origin.provider,
        request_model=facts.model,
        dimensions=dimensions_of_call(line),
        fetchable=True,
    )

    def price_of(model: str | None, tier: str | None) -> Any:
        return line.prices.resolve(
            provider=origin.provider, model=model, base_url=origin.url, at=created, service_tier=tier
        )

    asked = RequestFacts(measure=lambda: (0, None), model=facts.model)
    book(record, asked, facts, price_of, cut_stream="estimate")
    return record
