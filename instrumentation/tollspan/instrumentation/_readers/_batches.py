"""Batches: their results are fetched, when they are complete, from OpenAI's files and from Anthropic.

To start a batch or to ask how it is getting on tells nothing that is not in its results too, where each answer has an
id and a model of its own: so an answer counts when its results are read for the first time, at the price of a batch.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._anthropic._messages import ANTHROPIC_MESSAGES
from tollspan.instrumentation._readers._facts import Fetch, Reader, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OPENAI_CHAT
from tollspan.instrumentation._readers._openai._completions import OPENAI_COMPLETIONS
from tollspan.instrumentation._readers._openai._embeddings import OPENAI_EMBEDDINGS
from tollspan.instrumentation._readers._openai._images import OPENAI_IMAGES
from tollspan.instrumentation._readers._openai._responses import OPENAI_RESPONSES

_TIER = "batch"
_GOOD = 200
_READERS: Mapping[object, Reader] = {
    "chat.completion": OPENAI_CHAT,
    "list": OPENAI_EMBEDDINGS,
    "response": OPENAI_RESPONSES,
    "text_completion": OPENAI_COMPLETIONS,
}


def _openai(line: Mapping[str, Any]) -> ResponseFacts | None:
    """Read a line of a batch's output file; embeddings and images have no id but that of their line."""
    answer = line.get("response")
    body = sse.at(answer, "body")
    if not isinstance(body, dict) or sse.at(answer, "status_code") != _GOOD:
        return None
    reader = _READERS.get(body.get("object"), OPENAI_IMAGES)
    facts = reader.response(orjson.dumps(body))
    facts.operation = reader.operation
    facts.response_id = facts.response_id or sse.text(line.get("id"))
    facts.created = sse.count(body.get("created")) or sse.count(body.get("created_at"))
    return facts


def _anthropic(line: Mapping[str, Any]) -> ResponseFacts | None:
    """Read a line of a batch's results."""
    message = sse.at(line.get("result"), "message")
    return ANTHROPIC_MESSAGES.response(orjson.dumps(message)) if isinstance(message, dict) else None


def _lines(body: bytes, read: Callable[[Mapping[str, Any]], ResponseFacts | None]) -> Iterator[ResponseFacts]:
    """Read lines of JSON; other files come by the same address, and give nothing.

    The answers themselves name the tier of a batch as the default one, or not at all. Where they do not tell when they
    were made either, they count when they are fetched.
    """
    if body[:1] != b"{":
        return
    now = int(time.time())
    for line in body.splitlines():
        value = sse.parsed(line) if line.startswith(b"{") else None
        facts = read(value) if isinstance(value, dict) else None
        if facts is not None:
            facts.service_tier, facts.created = _TIER, facts.created or now
            yield facts


BATCH_FETCHES: tuple[Fetch, ...] = (
    Fetch(r"(?:.*/)?v1/files/[^/]+/content", OPENAI_CHAT, lambda body: _lines(body, _openai), _TIER),
    Fetch(r".*/openai/files/[^/]+/content", OPENAI_CHAT, lambda body: _lines(body, _openai), _TIER),
    Fetch(r".*/messages/batches/[^/]+/results", ANTHROPIC_MESSAGES, lambda body: _lines(body, _anthropic), _TIER),
)
