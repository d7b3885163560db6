"""Prompts and answers on spans and events, by OpenTelemetry's own switch and no other; the ledger never has them.

OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT, in any case: `span_only` or `true`, `event_only`, `span_and_event`;
unset, `no_content` and `false` are off. While it is off, a call pays for one look at `CAPTURE.active`, and nothing that
reads content is imported.
"""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry.trace import Span

if TYPE_CHECKING:
    from tollspan.exporter import CallRecord

__all__ = ["CAPTURE", "Capture", "capture"]

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LIMITS = ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")
"""OpenTelemetry's limits of an attribute, the first one that is set."""
MOST_CHARS = 65_536
"""The limit where OpenTelemetry sets none: a few such spans still fit the 4 MiB that a collector takes at once."""

_log = logging.getLogger("tollspan.instrumentation")
_CONVERSATIONS = frozenset({"chat", "generate_content", "text_completion"})
_MODES = {
    "": (False, False),
    "false": (False, False),
    "no_content": (False, False),
    "true": (True, False),
    "span_only": (True, False),
    "event_only": (False, True),
    "span_and_event": (True, True),
}


class Capture:
    """What of the content of calls is told, and where. `limit` is in characters of each attribute's JSON."""

    __slots__ = ("active", "events", "limit", "spans")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Tell nothing."""
        self.active = self.spans = self.events = False
        self.limit = MOST_CHARS

    def read(self, environ: Mapping[str, str] | None = None) -> None:
        """Do as the environment says, by default that of the process; what it does not say clearly is off."""
        environ = os.environ if environ is None else environ
        said = environ.get(VARIABLE, "").strip().lower()
        if said not in _MODES:
            _log.warning("%s is none of %s: no content is captured", VARIABLE, ", ".join(filter(None, _MODES)))
        self.spans, self.events = _MODES.get(said, (False, False))
        self.active = self.spans or self.events
        limits = (environ.get(name, "").strip() for name in LIMITS)
        self.limit = next((int(limit) for limit in limits if limit.isdecimal()), MOST_CHARS)


CAPTURE = Capture()
"""What is captured in this process: nothing, until `instrument()` has read the environment."""


def capture(span: Span, record: "CallRecord", asked: bytes | None, received: bytes, *, stream: bool) -> None:
    """Tell what was asked and answered, as bytes on the wire, on a span that is about to end, and as an event."""
    if record.operation not in _CONVERSATIONS:
        return
    on_span, as_event = CAPTURE.spans and span.is_recording(), CAPTURE.events and span.get_span_context().is_valid
    if not (on_span or as_event):
        return
    from . import _told  # noqa: PLC0415 - wanted by few, and an event needs OpenTelemetry's logs

    content = _told.content(asked, received, stream=stream, limit=CAPTURE.limit)
    if on_span:
        _told.on_span(span, content)
    if as_event:
        _told.as_event(span, record, content)
