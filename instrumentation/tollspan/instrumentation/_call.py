"""One call, from before its request to its settlement: admission, span, attempts, answer, cost.

The wrapper of a call site opens it, the wire reports to it, and it settles itself exactly once.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from tollspan.budget import Admission, CallIntent, CallRefused, UnboundedCost, aadmit, admit, is_budgeted, reach
from tollspan.exporter import CURRENT, CallRecord, Pipeline, beginning, coverage, retry, wait_event
from tollspan.ledger import Entry, RateCard, Unpriced, internal_errors, new_call_id

from . import _outcomes
from . import _semconv as sc
from ._billing import book, book_unknown, book_unread, upper_bound
from ._content import CAPTURE, capture
from ._lately import TASKS
from ._open_streams import ended, opened
from ._patience import FIRST_WAIT, Waits
from ._providers import origin_of
from ._readers import Reader, RequestFacts, ResponseFacts
from ._refusals import AttemptRefused, Refusals
from ._spans import describe_end, start_span
from ._tap import Sink
from ._tracing import provider_in_use


def current() -> "Call | Expected | None":
    """The call in force here. A context that was copied inside a call, as for a task, may outlive that call."""
    here: Call | Expected | None = CURRENT.get()
    return here if here is not None and here.in_force else None


_MOST_HELD_ATTEMPTS = 255
_SMALL_BYTES = 16_384
_ADMITTED = Admission()


class Expected:
    """Calls whose requests are first seen on the wire; `call` is the latest of them.

    `reader` is the flavour's, where the path on the wire does not tell it; `vendor`, whom an unknown host is taken for.
    """

    __slots__ = ("call", "in_force", "reader", "vendor")

    def __init__(self, reader: Reader | None, vendor: str | None = None) -> None:
        self.reader, self.vendor = reader, vendor
        self.in_force = False
        self.call: Call | None = None


class Call:
    """A call in progress.

    `asked` is the body of its latest attempt, only kept while content is captured.
    `changeable` tells whether its request can still be changed. `sending` is the wire that has its attempt now: what
    passes another wire below that one, as where httpx sends by means of aiohttp, is the same attempt.
    `unadmitted` says that the budgets are only asked when its request is seen on the wire. `on_wire` says that what
    they want changed in it is changed there, at each attempt.
    """

    __slots__ = (
        "_answered", "_began", "_body", "_counted", "_error", "_headers", "_json_error", "_line",
        "_origin", "_settled", "_sink", "_status", "admission", "asked", "changeable", "facts", "hide", "in_force",
        "on_wire", "reader", "record", "sending", "span", "unadmitted", "waits",
    )  # fmt: skip

    def __init__(
        self, line: Pipeline, reader: Reader, url: Any, facts: RequestFacts, *, vendor: str | None, changeable: bool
    ) -> None:
        now = time.time()
        self._began = time.perf_counter()
        self._line, self.reader, self.facts, self.changeable = line, reader, facts, changeable
        self._origin = origin_of(url, vendor or reader.vendor, line.settings.providers)
        self._sink: Sink | None = None
        self._body: bytes | None = None
        self.asked: bytes | None = None
        self._status: int | None = None
        self._error: BaseException | None = None
        self.waits: Waits | None = None
        self._headers: Mapping[str, str] = {}
        self._settled = self._answered = self._json_error = self.hide = self.in_force = False
        self.on_wire = self.unadmitted = False
        self.sending: object = None
        self.admission = _ADMITTED
        self.record = CallRecord(
            call_id=new_call_id(now),
            started=now,
            operation=facts.operation or reader.operation,
            provider=self._origin.provider,
            request_model=facts.model,
            dimensions=dimensions_of_call(line),
            attempts=0,
            fetchable=reader.fetchable,
        )
        provider = provider_in_use()
        line.attach(provider)
        self.span = start_span(provider, self.record, facts.attributes, self._origin)
        self._counted = coverage.opened(self.record)

    # ---- before the request

    @property
    def host(self) -> str:
        """The host that it goes to."""
        return self._origin.host

    def admitted_on_wire(self) -> bool:
        """Whether it is to be admitted now that its request is on the wire: once, and only where it has waited."""
        was, self.unadmitted = self.unadmitted, False
        return was

    def noted_count(self, tokens: int) -> None:
        """The provider has counted its input."""
        self.span.set_attribute(sc.COUNTED_TOKENS, tokens)

    def admit(self, *, attempt: int = 0) -> None:
        """Ask the budgets. Raises CallRefused."""
        if self.facts.free or not is_budgeted():
            return
        try:
            with internal_errors, Refusals() as refusals:
                self._admitted(admit(self.record, self._intent(), attempt=attempt))
        except BaseException as error:
            self._not_sent(error, attempt)
            raise
        self._raise_refusal(refusals, attempt)

    async def aadmit(self, *, attempt: int = 0) -> None:
        """Ask the budgets, from a task. Raises CallRefused."""
        if self.facts.free or not is_budgeted():
            return
        try:
            with internal_errors, Refusals() as refusals:
                self._admitted(await aadmit(self.record, self._intent(), attempt=attempt))
        except BaseException as error:
            self._not_sent(error, attempt)
            raise
        self._raise_refusal(refusals, attempt)

    def prepared(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with what admission and accounting need changed in them, each change noted on the span."""
        with internal_errors:
            changed = arguments
            if self.admission.model is not None:
                changed = changed | {"model": self.admission.model}
            if self.admission.output_tokens is not None:
                changed = changed | self.reader.with_output_limit(changed, self.admission.output_tokens)
                self.facts.max_output_tokens = self.admission.output_tokens  # also for the hold of a repetition
                self.span.set_attributes({sc.OUTPUT_CLAMPED: True, sc.REQUEST_MAX_TOKENS: self.admission.output_tokens})
            if self.facts.stream and self._line.settings.include_usage:
                asked = self.reader.with_usage_asked(changed)
                if asked:
                    self.hide = True
                    self.span.set_attribute(sc.USAGE_ASKED, True)
                    changed = changed | asked
            return changed
        return arguments

    # ---- on the wire

    def before_attempt(self, size: int | None = None) -> None:
        """An attempt is about to be sent, in so many bytes. Raises AttemptRefused where a budget has no room for it."""
        first = self._error
        if self._repeats():
            try:
                self.admit(attempt=self.record.attempts)
            except CallRefused as refusal:
                raise AttemptRefused(refusal) from first
        self._begin_attempt(size)

    async def abefore_attempt(self, size: int | None = None) -> None:
        """As before_attempt, from a task."""
        first = self._error
        if self._repeats():
            try:
                await self.aadmit(attempt=self.record.attempts)
            except CallRefused as refusal:
                raise AttemptRefused(refusal) from first
        self._begin_attempt(size)

    def waited(self, waited_ms: float) -> None:
        """The provider's rate limit was waited for, after the attempt that met it."""
        with internal_errors:
            sequence = FIRST_WAIT + self.record.attempts
            reason = "the provider's rate limit"
            event = wait_event(self.record, waited_ms, sequence, reason=reason, http_status=self._status)
            self._line.ledger.writer.put(Entry(event))

    def broke(self, error: BaseException) -> None:
        """The attempt got no answer; or one that its HTTP library has made an exception of, as aiohttp does."""
        status = getattr(error, "status", None)
        if isinstance(status, int) and status >= _outcomes.FIRST_ERROR:
            self.answered(status, b"")
        else:
            self._error = error

    def answered(self, status: int, body: bytes | None, headers: Mapping[str, str] | None = None) -> None:
        """The attempt got an answer; `body` None where it is still to be streamed."""
        self._answered, self._status, self._body = True, status, body
        if headers is not None and self.reader.header_names:
            self._headers = {name: headers[name] for name in self.reader.header_names if name in headers}

    def listen(self, status: int, headers: Mapping[str, str] | None = None, *, is_json: bool = False) -> Sink:
        """A sink for an answer that is still to be read; a good answer settles the call when it ends.

        `is_json` tells of an error that its body is declared to be JSON.
        """
        self.answered(status, None, headers)
        if status < _outcomes.FIRST_ERROR:
            self._sink = Sink(self._stream_ended, self._stream_abandoned)
            if self.facts.stream:
                framed = headers is not None and "amazon.eventstream" in headers.get("content-type", "")
                self._sink.marks = (framed and self.reader.framed_marks) or self.reader.terminal_marks
                self._sink.is_terminal = self.reader.is_complete
            if self.admission.cut_stream == "drain" or self._line.settings.drain_cut_streams:
                self._sink.is_complete = self.reader.is_complete
            self._line.ledger.writer.start()  # its thread settles an abandoned stream
            opened(self)
        else:
            self._sink, self._json_error = Sink(lambda _error, _left: None, lambda: None), is_json
        return self._sink

    @property
    def is_over(self) -> bool:
        """Whether a good answer has come, or the call is settled: what is sent after that is another call."""
        return self._settled or (self._answered and (self._status or 0) < _outcomes.FIRST_ERROR)

    # ---- afterwards

    def returned(self, result: Any) -> None:
        """The SDK's method returned: settle now, unless a stream is still to be read."""
        streams = self._sink is not None and self._sink.open and (self._status or 0) < _outcomes.FIRST_ERROR
        if self._settled or streams:
            return
        with internal_errors:
            if not self._answered:
                self._body = _serialised(result)
                self.record.attempts = max(self.record.attempts, 1)
        # An error that no SDK has made an exception of.
        failed = (self._status or 0) >= _outcomes.FIRST_ERROR
        self._settle(partial(self._conclude_failure, None) if failed else self._conclude_answer)

    def failed(self, error: BaseException) -> None:
        """The SDK's method raised."""
        if self._sink is not None and self._sink.open:
            self._sink.open = False
        self._settle(partial(self._conclude_failure, error))

    def left(self) -> None:
        """The process ends, and the stream was not read to its end; or nothing was sent yet, on a websocket."""
        if self.record.attempts:
            self._stream_ended(None, True)
        else:
            self._settle(partial(self._conclude_failure, None))

    def unbilled(self, content: bytes = b"") -> None:
        """The provider has made nothing of it, and bills nothing, on a connection where no HTTP status says so."""
        self._status, self._answered, self._body = None, True, content
        if self._sink is not None:
            self._sink.open = False
        self._settle(partial(self._conclude_failure, None))

    def kept_open(self) -> None:
        """What ends it is still to be heard; where nobody hears that, the end of the process settles it."""
        self._line.ledger.writer.start()  # its thread settles what is abandoned
        opened(self)

    def disowned(self) -> None:
        """This is a forked child: its parent settles the call."""
        self._settled = True
        if self._sink is not None:
            self._sink.open = False

    def destroyed(self, error: GeneratorExit) -> None:
        """The coroutine of the SDK's method was thrown away by the garbage collector, in which no lock may be taken."""
        self.deferred(partial(self.failed, error))

    def deferred(self, settle: Callable[[], None]) -> None:
        """Have the writer's thread settle it: the garbage collector has found that nobody else will."""
        self._line.ledger.writer.defer(settle)

    # ---- inside

    def _intent(self) -> CallIntent:
        return self._intent_of(self.facts)

    def _intent_of(self, facts: RequestFacts) -> CallIntent:
        clampable = self.changeable and facts.limitable
        return CallIntent(
            price=self._price(facts.model, facts.service_tier),
            input_tokens=facts.input_tokens_bound,
            max_output_tokens=facts.max_output_tokens,
            choices=facts.choices,
            unbounded=facts.unbounded,
            uncovered=self.record.category == "uncovered",
            units=facts.find_units(),
            text_only=facts.is_text(),
            clampable=clampable,
            of_model=self._intent_of_model if clampable and self.reader.names_model else None,
            learned=cache(partial(self._learned, facts.model)),
        )

    def _learned(self, model: str | None) -> int | None:
        known = self._line.ledger.learned_output(self.record.provider, model, self.record.operation) if model else None
        return known.tokens if known else None

    def _intent_of_model(self, model: str) -> CallIntent:
        return self._intent_of(replace(self.facts, model=model))

    def _price(self, model: str | None, service_tier: str | None) -> RateCard | Unpriced:
        return self._line.prices.resolve(
            provider=self._origin.provider,
            model=model,
            base_url=self._origin.url,
            at=self.record.started,
            service_tier=service_tier,
        )

    def _admitted(self, admission: Admission) -> None:
        self.admission = admission
        if admission.model is not None:
            self.span.set_attributes({sc.FALLBACK_FROM: self.facts.model or "", sc.REQUEST_MODEL: admission.model})
            self.facts.model = admission.model
        if admission.budgets:
            self.span.set_attribute(sc.BUDGET_NAME, admission.budgets)
        if admission.waited_ms:
            self.span.set_attribute(sc.BUDGET_WAIT_MS, round(admission.waited_ms, 3))

    def _raise_refusal(self, refusals: Refusals, attempt: int) -> None:
        if refusals.refusal is not None:
            self._not_sent(refusals.refusal, attempt)
            raise refusals.refusal

    def _not_sent(self, error: BaseException, attempt: int) -> None:
        """Refused or interrupted: that ends a call before its first attempt; a later one does not."""
        if attempt == 0:
            self.record.reason = "refused by a budget" if isinstance(error, CallRefused) else "not sent"
            self._settle(partial(self._conclude_failure, error))

    def _repeats(self) -> bool:
        """Close the books on the attempt before this one; True where a new hold is needed."""
        record, closed = self.record, False
        if record.attempts == 0:
            return False
        with internal_errors:
            outcome = self._attempt_outcome()
            self._note_attempt(outcome)
            closed = outcome != "unbilled"
        self._forget_attempt()
        if not closed:
            return False
        held, record.held = record.held, None
        if held is not None and record.attempts > _MOST_HELD_ATTEMPTS:
            raise AttemptRefused(
                UnboundedCost(f"a strict budget holds no more than {record.attempts} attempts of a call")
            )
        return bool(record.limits) and record.attempts <= _MOST_HELD_ATTEMPTS

    def _note_attempt(self, outcome: _outcomes.Outcome) -> None:
        record = self.record
        record.error_type, record.http_status = self._error_type(self._error), self._status
        billed = outcome != "unbilled"
        record.estimate = upper_bound(record, self.facts, self._price) if billed else None
        self._line.ledger.writer.put(retry(record, record.attempts, billed=billed))
        record.estimate = record.error_type = record.http_status = None

    def _begin_attempt(self, size: int | None) -> None:
        self.record.attempts += 1
        self._forget_attempt()
        if self.record.held is None and self.record.begun is None:
            with internal_errors:
                self._note_beginning(size)

    def _note_beginning(self, size: int | None) -> None:
        """Have the journal remember a call that no hold stands for: should the process be killed, it is counted."""
        writer = self._line.ledger.writer
        if writer.journal.enabled:
            known = size if size is not None and size < _SMALL_BYTES else None
            estimate = upper_bound(self.record, self.facts, self._price, request_bytes=known)
            self.record.begun = writer.begin(beginning(self.record, estimate))

    def _forget_attempt(self) -> None:
        self._status = self._body = self._error = self._sink = None
        self._answered = self._json_error = False

    def _attempt_outcome(self) -> _outcomes.Outcome:
        if self._error is not None:
            return _outcomes.of_exception(self._error)
        if self._status is None:
            return "unbilled"
        own = self._status >= 500 and self._has_provider_error()  # noqa: PLR2004 - HTTP: from 500 on, the server's
        return _outcomes.of_status(self._status, provider_error=own)

    def _has_provider_error(self) -> bool:
        received = self._received()
        if not received:  # before an SDK repeats a stream's request, it closes the error unread
            return self._json_error
        facts = self.reader.response(received)
        return facts.error_type is not None or facts.error_message is not None

    def _received(self) -> bytes:
        if self._body is None:
            self._body = self._sink.received if self._sink else b""
        return self._body

    def _read(self) -> ResponseFacts:
        # By what was asked and not by the content type: some servers send a stream as application/json.
        received = self._received()
        facts = self.reader.stream(received) if self.facts.stream else self.reader.response(received)
        if self._headers:
            self.reader.take_headers(facts, self._headers)
        return facts

    def _stream_ended(self, error: BaseException | None, left: bool) -> None:
        if error is not None and self.in_force and not self.facts.stream:
            self._error = error  # some SDKs read a whole answer after the wire gave it, and send again where it is cut
            return
        self._settle(partial(self._conclude_stream, error, left))

    def _stream_abandoned(self) -> None:
        # Called by the garbage collector: the writer's thread settles it, because here no lock may be taken.
        self._line.ledger.writer.defer(partial(self._stream_ended, None, True))

    def _settle(self, conclude: Callable[[], ResponseFacts | None]) -> None:
        """Fill the record by `conclude`, then bring it and its span to their end; whatever happens, once."""
        # When the interpreter is being taken apart, nothing can be written any more: to try would wait for ever.
        if self._settled or sys.is_finalizing():
            return
        self._settled = True
        ended(self)
        record, facts = self.record, None
        with internal_errors:
            record.total_ms = (time.perf_counter() - self._began) * 1000
            record.http_status = self._status
            facts = conclude()
        with internal_errors:
            if record.cost_source is None and record.outcome != "unbilled":
                book_unread(record)
            describe_end(self.span, record, facts, with_cost=self._line.settings.cost_attributes)
        if CAPTURE.active:
            with internal_errors:
                capture(self.span, record, self.asked, self._received(), stream=self.facts.stream)
            self.asked = None
        with internal_errors:
            coverage.settled(self._counted, record)
        with internal_errors:
            self._line.settle(record, self.span)
        if self._sink is not None:
            self._sink.chunks.clear()  # whoever keeps the stream's object keeps the sink
            self._sink.source = None
        self._forget_attempt()

    def _conclude_answer(self) -> ResponseFacts:
        """A whole answer, in JSON or as a finished stream."""
        facts = self._read()
        book(self.record, self.facts, facts, self._price, cut_stream=self.admission.cut_stream)
        if self.record.fetchable and facts.usage is None and facts.response_id and self.record.model:
            TASKS.note(facts.response_id, self.record.model)
        if facts.error_type is not None:
            self._note_error(None, facts)
        return facts

    def _conclude_stream(self, error: BaseException | None, left: bool) -> ResponseFacts:
        record, sink = self.record, self._sink
        left_at = sink.left_at if sink is not None else None
        if sink is not None and sink.first_at is not None and self.facts.stream:
            record.ttft_ms = (sink.first_at - self._began) * 1000
        if left_at is not None:
            self._end_when_left(left_at)
        facts = self._read()
        by_itself = error is None and not left
        if not self.facts.stream:
            facts.complete = facts.usage is not None or by_itself
        # Not every server sends a terminal event, and some flavours have none.
        elif by_itself and (facts.finish_reasons or not self.reader.terminal_marks):
            facts.complete = True
        if facts.complete and left_at is None:  # what an SDK meets while it clears up after the last event: no matter
            error = None
        book(record, self.facts, facts, self._price, cut_stream=self.admission.cut_stream)
        if error is not None or facts.error_type is not None:
            self._note_error(error, facts)
        elif left_at is not None or not facts.complete:
            record.status = "cancelled" if left else "error"
            record.error_type = None if left else "incomplete_stream"
        return facts

    def _end_when_left(self, left_at: float) -> None:
        """What was read in the background concerns the bill, and not the times that the caller saw."""
        record, total_ms = self.record, (left_at - self._began) * 1000
        record.total_ms = total_ms
        if record.ttft_ms is not None and record.ttft_ms > total_ms:
            record.ttft_ms = None

    def _conclude_failure(self, error: BaseException | None) -> ResponseFacts | None:
        """The call failed: what that means for the bill was seen on the wire, not in the SDK's exception, if any."""
        record = self.record
        self._note_error(error, None)
        # Before the first attempt nothing is sent, unless on a wire that is no HTTP client known here.
        if error is not None and not record.attempts:
            record.outcome = _outcomes.of_unseen(error)
        else:
            record.outcome = self._attempt_outcome()
        facts = self._read() if self._answered else None
        if record.outcome == "billed" and facts is not None:
            book(record, self.facts, facts, self._price, cut_stream=self.admission.cut_stream)
        elif record.outcome == "unknown":
            book_unknown(record, self.facts, self._price, "nobody can tell whether it was billed")
        self._note_error(error, facts)
        return facts

    def _note_error(self, error: BaseException | None, facts: ResponseFacts | None) -> None:
        record = self.record
        cancelled = error is not None and not isinstance(error, Exception)
        record.status = "cancelled" if cancelled else "error"
        record.error_type = (facts.error_type if facts else None) or self._error_type(error)
        record.error_message = facts.error_message if facts else None

    def _error_type(self, error: BaseException | None) -> str | None:
        if error is not None:
            return type(error).__name__
        return str(self._status) if self._status is not None else None


def dimensions_of_call(line: Pipeline) -> Mapping[str, str]:
    """Who and what the call belongs to: the configuration, overridden by the scopes in force."""
    settings, here = line.settings, reach().dimensions
    if not settings.tags and settings.profile is None:
        return here
    base = {f"tag:{key}": value for key, value in settings.tags.items()}
    if settings.profile is not None:
        base["profile"] = settings.profile
    return {**base, **here}


def _serialised(result: Any) -> bytes | None:
    """The answer as JSON where the wire was not seen, as with a transport that is no httpx client at all."""
    dump = getattr(result, "model_dump_json", None)
    return dump().encode() if callable(dump) else None
