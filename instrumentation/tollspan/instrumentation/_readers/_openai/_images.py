"""OpenAI's images: the newest models are billed by tokens, which their answers tell, and the others by the piece."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat

_TERMINAL = frozenset({"image_generation.completed", "image_edit.completed"})
_PARTS: sse.Parts = (
    ("tokens_image_in", (("input_tokens_details", "image_tokens"),)),
    ("tokens_cache_read", (("cached_tokens",),)),
    ("tokens_image_cache_read", (("cached_tokens_details", "cached_image_tokens"),)),
)
_ANY = "auto"


class _OpenAIImages(OpenAIChat):
    """`POST .../images/generations`, `.../edits` and `.../variations`; the last two take forms."""

    __slots__ = ()
    name = "openai.images"
    operation = "image_generation"
    asked_keys: frozenset[str] = frozenset({"image", "images", "prompt"})
    # A stream may have several images, each with an event that looks like the last one: so no event settles a call.
    terminal_marks: tuple[bytes, ...] = ()
    path_suffixes: tuple[str, ...] = ("/images/generations", "/images/edits", "/images/variations")

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. Nothing in it bounds the tokens of an image."""
        asked = bounds.effective(body)
        return RequestFacts(
            measure=lambda: (bounds.input_bound(asked, "prompt", {}, tools=False)[0], "images"),
            model=sse.text(asked.get("model")),
            stream=asked.get("stream") is True,
            max_output_tokens=0,
            choices=sse.count(asked.get("n")) or 1,
            priced=False,
            usage_of=partial(_used, sse.text(asked.get("size")), sse.text(asked.get("quality"))),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = super().response(body)
        facts.usage, facts.others = _usage(answer), tuple(_author(answer))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. Each image has an event of its own, with what it has used."""
        if sse.is_whole(received):
            return self.response(received)
        facts = ResponseFacts(complete=False)
        for event in sse.events(sse.normal(received)):
            if sse.text(event.get("type")) in _TERMINAL:
                facts.complete = True
                facts.usage = _sum(facts.usage, _usage({**event, "data": [event]}) or {})
            elif error := event.get("error"):
                facts.error_type, facts.error_message = sse.failure(error)
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: an image is there."""
        return any(sse.text(event.get("type")) in _TERMINAL for event in sse.newest(sse.normal(tail), b".completed"))

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`: nothing limits it."""
        return {}

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`: these streams tell it."""
        return None


OPENAI_IMAGES = _OpenAIImages()


def drawn_tokens(raw: object) -> dict[str, float] | None:
    """Give the tokens of images, also of those that a tool of the Responses API draws; None where they are not told."""
    tokens_in, tokens_out = sse.count(sse.at(raw, "input_tokens")), sse.count(sse.at(raw, "output_tokens"))
    if not isinstance(raw, dict) or tokens_in is None or tokens_out is None:
        return None
    tokens: dict[str, float] = {"tokens_in": tokens_in, "tokens_out": tokens_out, **sse.counts(raw, _PARTS)}
    details = raw.get("output_tokens_details")
    # Without details, all that these models give is an image.
    shown = sse.count(sse.at(details, "image_tokens")) if isinstance(details, dict) else tokens_out
    return {**tokens, "tokens_image_out": shown} if shown else tokens


def _usage(answer: Mapping[str, Any]) -> dict[str, float] | None:
    """Give tokens where the answer tells them, else how many images there are, and which."""
    if (tokens := drawn_tokens(answer.get("usage"))) is not None:
        return tokens
    images = answer.get("data")
    if not isinstance(images, list) or not images:
        return None
    return _counted(len(images), sse.text(answer.get("size")), sse.text(answer.get("quality")))


def _counted(images: float, size: str | None, quality: str | None) -> dict[str, float]:
    """Give a count of images, and the same under what sets the price of one, where that is known."""
    known = [word for word in (size, quality) if word is not None and word != _ANY]
    return {"images": images, ":".join(["images", *known]): images}


def _used(size: str | None, quality: str | None, answer: ResponseFacts) -> dict[str, float] | None:
    """Give the usage of an answer; older models leave it to the request which images they give."""
    usage = answer.usage
    if usage is not None and set(usage) == {"images"}:
        return _counted(usage["images"], size, quality)
    return usage


def _sum(known: dict[str, float] | None, more: Mapping[str, float]) -> dict[str, float]:
    known = known or {}
    return {**known, **{key: known.get(key, 0) + count for key, count in more.items()}}


def _author(answer: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Give what a text model has used that wrote a drawing (SVG) after the image."""
    raw = answer.get("svg_usage")
    model = sse.text(sse.at(raw, "model"))
    tokens_in, tokens_out = sse.count(sse.at(raw, "input_tokens")), sse.count(sse.at(raw, "output_tokens"))
    if model is not None and tokens_in is not None and tokens_out is not None:
        reasoning = sse.count(sse.at(raw, "reasoning_tokens"))
        parts: dict[str, float] = {"tokens_reasoning": reasoning} if reasoning else {}
        yield model, {"tokens_in": tokens_in, "tokens_out": tokens_out, **parts}
