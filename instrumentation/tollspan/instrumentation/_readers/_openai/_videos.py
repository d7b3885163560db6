"""OpenAI's videos: billed by the second when they are ready, which a poll tells."""

from collections.abc import Iterator, Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, RequestFacts, ResponseFacts

_MOST_DIGITS = 6


class _OpenAIVideos(Flavour):
    """`POST .../v1/videos`, `.../edits` and `.../extensions`: forms, which start a job."""

    __slots__ = ()
    name = "openai.videos"
    vendor = "openai"
    operation = "video_generation"
    asked_keys: frozenset[str] = frozenset({"prompt"})
    # Other services have paths that end in `/videos`.
    path_suffixes: tuple[str, ...] = ("/v1/videos", "/v1/videos/edits", "/v1/videos/extensions")
    fetchable = True

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. An edit lasts as long as what is edited, which the request only names."""
        asked = bounds.effective(body)
        return RequestFacts(
            measure=lambda: (bounds.input_bound(asked, "prompt", {}, tools=False)[0], "video"),
            model=sse.text(asked.get("model")),
            max_output_tokens=0,
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. A job that is not over has no usage, and one that failed is not billed."""
        answer = sse.parsed_object(body)
        status = sse.text(answer.get("status"))
        facts = ResponseFacts(
            model=sse.text(answer.get("model")),
            response_id=sse.text(answer.get("id")),
            created=sse.count(answer.get("created_at")),
            finish_reasons=(status,) if status in ("completed", "failed") else (),
        )
        if status == "completed":
            facts.usage = _usage(answer)
        elif status == "failed":
            facts.usage = {"video_seconds": 0}
        facts.error_type, facts.error_message = sse.failure(sse.error_in(answer))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there are none."""
        return self.response(received)


OPENAI_VIDEOS = _OpenAIVideos()


def _usage(answer: Mapping[str, Any]) -> dict[str, float] | None:
    """Give the seconds, and the same under the size, which sets their price."""
    told = answer.get("seconds")
    seconds = int(told) if isinstance(told, str) and told.isdecimal() and len(told) <= _MOST_DIGITS else sse.count(told)
    if seconds is None:
        return None
    size = sse.text(answer.get("size"))
    return {"video_seconds": seconds, **({f"video_seconds:{size}": seconds} if size else {})}


def _fetched(body: bytes) -> Iterator[ResponseFacts]:
    if sse.parsed_object(body).get("object") == "video":
        yield OPENAI_VIDEOS.response(body)


VIDEO_FETCHES: tuple[Fetch, ...] = (Fetch(r".*/v1/videos/(?!characters)[^/]+/?", OPENAI_VIDEOS, _fetched),)
