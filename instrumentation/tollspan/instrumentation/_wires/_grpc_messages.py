"""xAI's protocol buffers in the JSON of its REST API, as far as a reader wants to know them."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

_TICKS_PER_USD = 10**10


def _plain(message: Any) -> dict[str, Any]:
    convert = import_module("google.protobuf.json_format").MessageToDict
    plain: dict[str, Any] = convert(message, preserving_proto_field_name=True)
    return plain


def _chat(message: Any) -> dict[str, Any]:
    body = _plain(message)
    for one in body.get("messages", ()):
        one["content"] = [_part(part) for part in one.get("content", ())]
    if "tools" in body:
        body["tools"] = [{"type": next(iter(tool), "function"), **tool} for tool in body["tools"]]
    if body.get("search_parameters", {}).get("mode") == "OFF_SEARCH_MODE":
        del body["search_parameters"]
    body["service_tier"] = _tier(body.get("service_tier"))
    return body


def _part(part: dict[str, Any]) -> dict[str, Any]:
    image, file = part.get("image_url"), part.get("file")
    if image is not None:
        if "file_id" in image:
            return {"type": "file", "file": {"file_id": image["file_id"]}}
        return {"type": "image_url", "image_url": {"url": image.get("image_url", "")}}
    if file is not None:
        keys = {"file_id": "file_id", "data": "file_data", "url": "file_url", "filename": "filename"}
        return {"type": "file", "file": {keys[key]: value for key, value in file.items() if key in keys}}
    return {"type": "text", **part}


def _compact(message: Any) -> dict[str, Any]:
    body = _plain(message)
    for one in (found := body.pop("input", [])):
        one["content"] = [_part(part) for part in one.get("content", ())]
    return {**body, "messages": found}


BODIES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "/xai_api.Chat/GetCompletion": _chat,
    "/xai_api.Chat/GetCompletionChunk": _chat,
    "/xai_api.Chat/StartDeferredCompletion": _chat,
    "/xai_api.Chat/CompactContext": _compact,
    "/xai_api.Image/GenerateImage": _plain,
    "/xai_api.Video/GenerateVideo": _plain,
    "/xai_api.Video/ExtendVideo": _plain,
}
"""What makes the body of the requests that are billed."""
FETCHED = frozenset(
    {
        "/xai_api.Chat/GetDeferredCompletion",
        "/xai_api.Video/GetDeferredVideo",
        "/xai_api.BatchMgmt/ListBatchResults",
    }
)
"""The methods whose answers tell what an earlier request has used."""


def answer_of(path: str, message: Any) -> dict[str, Any]:
    """The JSON of a whole answer; of one that is fetched, `answers` with those that are complete."""
    if path in FETCHED:
        return {"answers": list(_complete(message))}
    if hasattr(message, "request_id"):
        return {"id": message.request_id}
    return _told(message)


def _complete(message: Any) -> Iterator[dict[str, Any]]:
    if hasattr(message, "results"):
        for result in message.results:
            for kind in ("completion_response", "image_response", "video_response"):
                if result.HasField("response") and result.response.HasField(kind):
                    yield {"id": result.batch_request_id, **_told(getattr(result.response, kind))}
    elif message.HasField("response"):
        yield _told(message.response)


def _told(message: Any) -> dict[str, Any]:
    """The JSON of one answer without its content, but for the number of images and the length of a video."""
    told: dict[str, Any] = {"model": getattr(message, "model", None) or None, "usage": _usage(message)}
    if hasattr(message, "encrypted_content"):  # a compacted context
        told["id"] = message.id or None
    elif hasattr(message, "outputs"):
        told |= _identity(message)
        told["choices"] = [{"index": out.index, "finish_reason": _reason(out)} for out in message.outputs]
    elif hasattr(message, "images"):
        told["images"] = len(message.images)
    elif hasattr(message, "video"):
        told["video_seconds"] = message.video.duration
    return told


def chunk_of(message: Any) -> dict[str, Any]:
    """The JSON of a part of a stream."""
    usage = _usage(message) if message.HasField("usage") else None
    choices = []
    for out in message.outputs:
        delta: dict[str, Any] = {"content": out.delta.content}
        if out.delta.reasoning_content:
            delta["reasoning_content"] = out.delta.reasoning_content
        if out.delta.tool_calls:
            calls = out.delta.tool_calls
            delta["tool_calls"] = [
                {"function": {"name": call.function.name, "arguments": call.function.arguments}} for call in calls
            ]
        choices.append({"index": out.index, "delta": delta, "finish_reason": _reason(out)})
    return {**_identity(message), "choices": choices, **({"usage": usage} if usage else {})}


def _identity(message: Any) -> dict[str, Any]:
    created = message.created
    return {
        "id": message.id or None,
        "model": message.model or None,
        "created": (created.seconds + created.nanos / 1e9) or None,
        "service_tier": _tier(_named(message, "service_tier")),
    }


def _usage(message: Any) -> dict[str, Any] | None:
    if not message.HasField("usage"):
        return None
    used = message.usage
    told: dict[str, Any] = {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.total_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_prompt_text_tokens},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
    }
    fields = used.DESCRIPTOR.fields_by_name
    if "server_side_tools_used" in fields:
        names = fields["server_side_tools_used"].enum_type.values_by_number
        told["server_side_tools_used"] = [names[tool].name for tool in used.server_side_tools_used if tool in names]
    if "cost_in_usd_ticks" in fields and used.HasField("cost_in_usd_ticks"):
        told["cost"] = used.cost_in_usd_ticks / _TICKS_PER_USD
    return told


def _reason(output: Any) -> str | None:
    name = _named(output, "finish_reason")
    return None if name is None or name.endswith("INVALID") else name.removeprefix("REASON_").lower()


def _tier(name: str | None) -> str | None:
    return None if name is None or name.endswith("UNSPECIFIED") else name.removeprefix("SERVICE_TIER_").lower()


def _named(message: Any, field: str) -> str | None:
    described = message.DESCRIPTOR.fields_by_name.get(field)
    value = None if described is None else described.enum_type.values_by_number.get(getattr(message, field))
    return None if value is None else str(value.name)
