"""Answers that are fetched: one that was made in the background, or that the provider keeps.

The usage of a background response comes with the poll that finds it complete. It counts once, however often it is
fetched, by whomever: the ledger decides that, by the provider's id of the answer.
"""

import re
from functools import lru_cache, partial
from typing import Any

from opentelemetry.trace import get_current_span

from tollspan.budget import charged
from tollspan.exporter import CallRecord, coverage, pipeline, settlement
from tollspan.ledger import fetched_call_id, internal_errors

from ._billing import book
from ._call import dimensions_of_call
from ._lately import TASKS, Lately
from ._providers import origin_of
from ._readers import FETCHES, Fetch, RequestFacts, ResponseFacts
from ._tap import Sink

_counted: Lately[bool] = Lately()
"""Answers of which this process has told the ledger: polls go on after that, and need not ask it again."""


@lru_cache(maxsize=512)
def fetch_of(method: str, path: str) -> Fetch | None:
    """What a request fetches, where it is an answer that its provider keeps."""
    if method != "GET":
        return None
    return next((fetch for fetch in FETCHES if re.fullmatch(fetch.path, path)), None)


def overhear(fetch: Fetch, url: Any, content: bytes | None) -> Sink | None:
    """Count what a fetched answer has used; where it is still to be read, by means of the sink that this gives."""
    coverage.cover(get_current_span())  # if others make spans of polls, these count no call
    if content is not None:
        _count(fetch, url, content)
        return None
    sink = Sink(lambda _error, _left: None, lambda: None)
    sink.on_end = partial(_streamed, fetch, url, sink)
    return sink


def _streamed(fetch: Fetch, url: Any, sink: Sink, _error: BaseException | None, _left: bool) -> None:
    with internal_errors:
        _count(fetch, url, sink.received)


def _count(fetch: Fetch, url: Any, body: bytes) -> None:
    for facts in fetch.read(body):
        if facts.usage is None and facts.cost_usd is None:
            continue
        if facts.response_id is None or facts.created is None or facts.response_id in _counted:
            continue
        _counted.note(facts.response_id, True)
        record = _record(fetch, url, facts, facts.response_id, facts.created)
        record.limits = charged(record)  # where the ledger knows the call, those that admitted it count, not these
        coverage.settled(coverage.opened(record), record)
        pipeline().ledger.writer.put(settlement(record))


def _record(fetch: Fetch, url: Any, facts: ResponseFacts, response_id: str, created: float) -> CallRecord:
    line = pipeline()
    origin = origin_of(url, fetch.reader.vendor, line.settings.providers)
    facts.model = facts.model or TASKS.get(response_id)
    record = CallRecord(
        call_id=fetched_call_id(response_id, created),
        started=created,
        operation=facts.operation or fetch.reader.operation,
        provider=origin.provider,
        request_model=facts.model,
        dimensions=dimensions_of_call(line),
        fetchable=True,
    )

    def price_of(model: str | None, tier: str | None) -> Any:
        return line.prices.resolve(
            provider=origin.provider, model=model, base_url=origin.url, at=created, service_tier=tier
        )

    asked = RequestFacts(measure=lambda: (0, None), model=facts.model, service_tier=fetch.service_tier)
    book(record, asked, facts, price_of, cut_stream="estimate")
    return record
