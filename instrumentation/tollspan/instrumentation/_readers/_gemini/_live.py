"""Turns of Gemini's Live API: what its setup asks for, and what a message of its server says that a turn has used."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._gemini._generate import (
    config_attributes,
    config_of,
    grounded_usage,
    limit_in,
    made_units,
    tier_of,
)


class _GeminiLive(Flavour):
    """A websocket, of which no path tells the flavour. Its request is the setup, its answer one message."""

    __slots__ = ()
    name = "gemini.live"
    vendor = "gcp.gemini"
    operation = "generate_content"
    path_suffixes: tuple[str, ...] = ()
    names_model = False

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Google holds what was said before, and bills it again with each turn."""
        config, model = config_of(body), sse.text(body.get("model"))
        return RequestFacts(
            measure=lambda: (bounds.input_bound(body, "tools", {}, tools=True)[0], "live session"),
            model=model.rpartition("models/")[2] or None if model else None,
            max_output_tokens=limit_in(config),
            attributes=config_attributes(config),
            find_units=partial(made_units, config),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        message = sse.parsed_object(body)
        content, raw = message.get("serverContent"), message.get("usageMetadata")
        facts = ResponseFacts(service_tier=tier_of(raw))
        grounded = [{"candidates": [content]}] if isinstance(content, dict) else []
        facts.usage = grounded_usage(grounded, raw, None)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: a turn is read from one message."""
        return self.response(received)


GEMINI_LIVE = _GeminiLive()
