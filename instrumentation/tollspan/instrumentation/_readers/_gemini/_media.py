"""Google's images and videos: billed by the piece and by the second."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._gemini._bounds import content_bound
from tollspan.instrumentation._readers._gemini._names import failure, model_in

_MADE = ("bytesBase64Encoded", "gcsUri")
# Google's guide "Generate videos with Veo": what a request gets that does not say more.
_SECONDS = 8
_RESOLUTION = "720p"
_MOST_CHARS = 16

UsageOf = Callable[[ResponseFacts], dict[str, float] | None]


class _Made(Flavour, ABC):
    """What both have in common: no price of tokens says anything of the bill."""

    __slots__ = ()
    vendor = "gcp.gemini"
    asked_keys = frozenset({"instances"})
    names_model = False
    path_part = "/models/"
    made = ""

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        model = model_in(path)
        return RequestFacts(
            measure=lambda: (content_bound(body, "instances", model, tools=False)[0], self.made),
            model=model,
            max_output_tokens=0,
            priced=False,
            usage_of=self.usage_of(body.get("parameters")),
        )

    @abstractmethod
    def usage_of(self, parameters: object) -> UsageOf:
        """Give what tells the usage of an answer to a request with these parameters."""

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = ResponseFacts(response_id=sse.text(answer.get("name")))
        facts.error_type, facts.error_message = failure(answer)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there are none."""
        return self.response(received)


class _GeminiImages(_Made):
    """`POST .../models/{model}:predict` of a model that makes images, or changes them."""

    __slots__ = ()
    name = "gemini.images"
    operation = "image_generation"
    made = "images"
    path_suffixes: tuple[str, ...] = (":predict",)

    def usage_of(self, parameters: object) -> UsageOf:
        """See `_Made.usage_of`."""
        return partial(_images_used, sse.text(sse.at(parameters, "mode")))

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. Images that Google's filters hold back are not billed; without any, it is empty."""
        facts = super().response(body)
        answer = sse.parsed(body)
        if isinstance(answer, dict) and facts.error_type is None:
            listed = answer.get("predictions")
            images = [one for one in (listed if isinstance(listed, list) else ()) if any(sse.at(one, k) for k in _MADE)]
            facts.usage = {"images": len(images)}
        return facts


class _GeminiVideos(_Made):
    """`POST .../models/{model}:predictLongRunning`, which begins an operation: its end tells no seconds, either."""

    __slots__ = ()
    name = "gemini.videos"
    operation = "video_generation"
    made = "videos"
    path_suffixes: tuple[str, ...] = (":predictLongRunning",)

    def usage_of(self, parameters: object) -> UsageOf:
        """See `_Made.usage_of`."""
        return partial(_seconds_used, parameters)


GEMINI_IMAGES = _GeminiImages()
GEMINI_VIDEOS = _GeminiVideos()


def _images_used(mode: str | None, answer: ResponseFacts) -> dict[str, float] | None:
    """Give the images, and the same under the mode where it is another than to generate: it sets their price."""
    usage = answer.usage
    if usage is None or mode is None:
        return usage
    return {**usage, f"images:{mode[:_MOST_CHARS]}": usage["images"]}


def _seconds_used(parameters: object, answer: ResponseFacts) -> dict[str, float] | None:
    """Give the seconds of the videos that have been begun, and the same under what sets their price."""
    if answer.response_id is None:
        return None
    length = sse.count(sse.at(parameters, "durationSeconds")) or _SECONDS
    seconds = length * (sse.count(sse.at(parameters, "sampleCount")) or 1)
    resolution = sse.text(sse.at(parameters, "resolution")) or _RESOLUTION
    sound = ":silent" if sse.at(parameters, "generateAudio") is False else ""
    return {"video_seconds": seconds, f"video_seconds:{resolution[:_MOST_CHARS]}{sound}": seconds}
