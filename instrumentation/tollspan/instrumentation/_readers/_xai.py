"""xAI's gRPC API (package `xai_api`), whose messages the wire of gRPC puts into the JSON of xAI's REST API.

Source: the protocol definitions that xAI publishes (chat, image, video, deferred, batch and usage).
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import orjson

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, Reader, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._openai._chat import OpenAIChat, cost_of

_UNBOUNDED = {
    "previous_response_id": "conversation held by the server",
    "search_parameters": "hosted tool live_search",
}
# What the provider charges by use, besides tokens.
_TOOL_UNITS = {
    "SERVER_SIDE_TOOL_WEB_SEARCH": "web_searches",
    "SERVER_SIDE_TOOL_IMAGE_SEARCH": "web_searches",
    "SERVER_SIDE_TOOL_X_SEARCH": "social_searches",
    "SERVER_SIDE_TOOL_COLLECTIONS_SEARCH": "storage_searches",
    "SERVER_SIDE_TOOL_ATTACHMENT_SEARCH": "storage_searches",
    "SERVER_SIDE_TOOL_CODE_EXECUTION": "code_executions",
}


class _XAIChat(OpenAIChat):
    """`Chat/GetCompletion`, `GetCompletionChunk`, `StartDeferredCompletion` and `CompactContext`."""

    __slots__ = ()
    name = "xai.chat"
    vendor = "x_ai"
    path_suffixes: tuple[str, ...] = (
        "/xai_api.Chat/GetCompletion",
        "/xai_api.Chat/GetCompletionChunk",
        "/xai_api.Chat/CompactContext",
    )

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. The method tells whether the answer is a stream."""
        facts = super().request(body, path)
        facts.stream = path.endswith("Chunk")
        if facts.stream:
            facts.attributes["gen_ai.request.stream"] = True
        facts.measure = partial(_input_bound, facts.measure, body)
        return facts

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        facts = super().response(body)
        _take_tools(facts, sse.parsed_object(body))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`."""
        facts = super().stream(received)
        if facts.usage is not None:
            _take_tools(facts, next(sse.newest(received, b'"usage":{'), {}))
        return facts

    def with_usage_asked(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `Reader.with_usage_asked`: every stream tells its usage."""
        return None


class _XAIDeferred(_XAIChat):
    """`Chat/StartDeferredCompletion`, which gives the id that its answer is fetched by."""

    __slots__ = ()
    name = "xai.deferred"
    fetchable = True
    path_suffixes: tuple[str, ...] = ("/xai_api.Chat/StartDeferredCompletion",)


class _XAIMedia(Flavour):
    """`Image/GenerateImage`, `Video/GenerateVideo` and `Video/ExtendVideo`: billed by the piece and by the second."""

    __slots__ = ()
    name = "xai.media"
    vendor = "x_ai"
    operation = "generate_content"
    path_suffixes: tuple[str, ...] = ("/xai_api.Image/GenerateImage",)

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        return RequestFacts(
            measure=lambda: (bounds.input_bound(body, "prompt", {}, tools=False)[0], "images or video"),
            model=sse.text(body.get("model")),
            max_output_tokens=0,
            choices=sse.count(body.get("n")) or 1,
            priced=False,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = ResponseFacts(model=sse.text(answer.get("model")), response_id=sse.text(answer.get("id")))
        counted: dict[str, float] = {
            unit: number for unit in ("images", "video_seconds") if (number := sse.count(answer.get(unit)))
        }
        facts.usage, facts.cost_usd = counted or None, cost_of(answer.get("usage"))
        facts.error_type, facts.error_message = sse.failure(answer.get("error"))
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: there is none."""
        return self.response(received)


class _XAIVideo(_XAIMedia):
    """`Video/GenerateVideo` and `Video/ExtendVideo`, which give the id that their answer is fetched by."""

    __slots__ = ()
    name = "xai.video"
    fetchable = True
    path_suffixes: tuple[str, ...] = ("/xai_api.Video/GenerateVideo", "/xai_api.Video/ExtendVideo")


def _input_bound(measure: Any, body: Mapping[str, Any]) -> InputBound:
    tokens, endless = measure()
    return tokens, bounds.given(body, _UNBOUNDED) or endless


def _take_tools(facts: ResponseFacts, answer: Mapping[str, Any]) -> None:
    """Count the tools that ran on the server: each use is listed."""
    used = sse.at(answer, "usage", "server_side_tools_used")
    for tool in used if facts.usage is not None and isinstance(used, list) else ():
        unit = _TOOL_UNITS.get(tool) if isinstance(tool, str) else None
        if unit is not None and facts.usage is not None:
            facts.usage[unit] = facts.usage.get(unit, 0) + 1


def _fetched(reader: Reader, body: bytes) -> Iterable[ResponseFacts]:
    """Give the facts of the answers of a poll, or of the results of a batch, that are complete."""
    answers = sse.parsed_object(body).get("answers")
    for answer in answers if isinstance(answers, list) else ():
        facts = reader.response(orjson.dumps(answer))
        facts.created = bounds.number(sse.at(answer, "created"))
        yield facts


XAI_CHAT = _XAIChat()
XAI_MEDIA = _XAIMedia()
XAI: tuple[Reader, ...] = (XAI_CHAT, _XAIDeferred(), XAI_MEDIA, _XAIVideo())
XAI_FETCHES: tuple[Fetch, ...] = (
    Fetch("/xai_api.Chat/GetDeferredCompletion", XAI_CHAT, partial(_fetched, XAI_CHAT)),
    Fetch("/xai_api.Video/GetDeferredVideo", XAI_MEDIA, partial(_fetched, XAI_MEDIA)),
    Fetch("/xai_api.BatchMgmt/ListBatchResults", XAI_CHAT, partial(_fetched, XAI_CHAT), service_tier="batch"),
)
