"""From the JSON of requests and answers to the messages of the OpenTelemetry GenAI conventions.

Told by their shape and not by their flavour, because many vendors speak alike: `choices` as OpenAI's chat has them,
`contents` and `candidates` as Gemini, `input` and `output` as OpenAI's responses, blocks of `content` as Anthropic.
Source of the other side: model/gen-ai/gen-ai-input-messages.json, gen-ai-output-messages.json and
gen-ai-system-instructions.json of the semantic-conventions-genai repository. Media are named, with their size, and
never kept. Nothing here raises for any JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._inline import is_remote

Part = dict[str, Any]
Message = dict[str, Any]

_ROLES = {"model": "assistant", "chatbot": "assistant", "function": "tool"}
_MODALITIES = ("image", "video", "audio")
_FINISHES = {
    "stop": ("stop", "end_turn", "stop_sequence", "completed", "complete", "eos", "done"),
    "length": ("length", "max_tokens", "max_output_tokens", "model_context_window_exceeded", "model_length"),
    "tool_call": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "content_filter": ("content_filter", "refusal", "safety", "recitation", "prohibited_content", "blocklist", "spii"),
    "error": ("error", "failed"),
}
_FINISH = {theirs: ours for ours, names in _FINISHES.items() for theirs in names}


def system_instructions(asked: Mapping[str, Any]) -> list[Part]:
    """What a request says apart from its conversation."""
    keys = ("system", "instructions", "systemInstruction", "system_instruction", "preamble")
    return [part for key in keys if asked.get(key) is not None for part in _parts(asked[key])]


def input_messages(asked: Mapping[str, Any]) -> list[Message]:
    """The conversation that a request carries."""
    for key in ("messages", "contents", "input", "prompt", "message"):
        value = asked.get(key)
        if isinstance(value, Mapping) and key == "input":  # the envelope of some vendors
            return input_messages(value)
        if value is not None:
            return [message for item in _several(value) for message in _asked(item)]
    return []


def output_messages(answer: Mapping[str, Any]) -> list[Message]:
    """What a whole answer says, one message for each choice."""
    for key, read in _ANSWERS.items():
        if answer.get(key) is not None:
            return [message for message in read(answer) if message["parts"]]
    return []


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, bounds.SEQUENCES) else (value,)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, bounds.SEQUENCES) else ()


# ---- messages


def _asked(item: Any) -> Iterator[Message]:
    if isinstance(item, str):
        yield {"role": "user", "parts": [_text(item)]}
    elif isinstance(item, Mapping):
        role = sse.text(item.get("role"))
        if role is None:  # an item of the responses API that is no message, or a part without one around it
            kind = sse.text(item.get("type")) or ""
            parts = _parts(item["parts"]) if "parts" in item else [_part(item)]
            yield {"role": _role_of(kind), "parts": parts}
        else:
            yield _message(item, role)


def _role_of(kind: str) -> str:
    if kind.endswith(("_output", "_result", "_response")):
        return "tool"
    return "assistant" if kind.endswith("_call") or kind == "reasoning" else "user"


def _message(item: Mapping[str, Any], role: str = "assistant") -> Message:
    role = _ROLES.get(role.lower(), role.lower())
    content = item.get("content") if item.get("content") is not None else item.get("parts")
    if isinstance(content, Mapping):
        content = content.get("parts", content)
    parts = [*_thoughts(item), *_parts(content), *_parts(item.get("refusal")), *_calls(item)]
    if role == "tool" and (reply := item.get("tool_call_id")) is not None:
        said = item.get("content")
        answered = _parts(said) if isinstance(said, bounds.SEQUENCES) else said
        parts = [{"type": "tool_call_response", "id": reply, "response": answered}]
    if transcript := sse.text(sse.at(item.get("audio"), "transcript")):
        parts.append(_text(transcript))
    name = sse.text(item.get("name"))
    return {"role": role, "parts": parts, **({"name": name} if name else {})}


def _thoughts(item: Mapping[str, Any]) -> list[Part]:
    thoughts = (sse.text(item.get(key)) for key in ("reasoning_content", "reasoning", "thinking"))
    return [{"type": "reasoning", "content": thought} for thought in thoughts if thought][:1]


def _calls(item: Mapping[str, Any]) -> list[Part]:
    calls = [*_listed(item.get("tool_calls"))]
    if isinstance(item.get("function_call"), Mapping):
        calls.append({"function": item["function_call"]})
    return [_call(call, sse.at(call, "function") or sse.at(call, "custom") or call) for call in calls]


def _call(call: Any, function: Any, arguments: str = "arguments") -> Part:
    found = {"id": sse.at(call, "call_id") or sse.at(call, "id"), "name": sse.text(sse.at(function, "name")) or ""}
    given = sse.at(function, arguments)
    if given is None:
        given = sse.at(function, "input")
    if isinstance(given, str):
        parsed = sse.parsed(given.encode("utf-8", "replace"))
        given = given if parsed is None else parsed
    return {"type": "tool_call", **{k: v for k, v in found.items() if v is not None}, "arguments": given}


# ---- parts


def _parts(content: Any) -> list[Part]:
    if isinstance(content, Mapping) and "parts" in content:
        content = content["parts"]
    return [_part(part) for part in _several(content) if part not in (None, "")]


def _text(text: Any) -> Part:
    return {"type": "text", "content": text if isinstance(text, str) else ""}


def _part(part: Any) -> Part:
    if isinstance(part, str):
        return _text(part)
    if not isinstance(part, Mapping):
        return {"type": "unknown"}
    kind = sse.text(part.get("type")) or next((key for key in part if key in _KINDS), next(iter(part), "unknown"))
    read = _KINDS.get(kind)
    return read(part) if read is not None else _other(kind, part)


def _other(kind: str, part: Mapping[str, Any]) -> Part:
    """A part that has no shape of its own here: what a server's tool does, or else its kind alone."""
    if kind.endswith("_tool_result"):
        said = {"type": kind.removesuffix("_tool_result"), "content": part.get("content")}
        found = {"type": "server_tool_call_response", "id": part.get("tool_use_id"), "server_tool_call_response": said}
    elif kind == "server_tool_use" or kind.endswith("_call"):
        name = sse.text(part.get("name")) or kind.removesuffix("_call")
        said = {"type": name, **{key: part[key] for key in ("input", "action", "arguments", "code") if key in part}}
        found = {"type": "server_tool_call", "id": part.get("id"), "name": name, "server_tool_call": said}
    else:
        return {"type": kind}
    return {key: value for key, value in found.items() if value is not None}


def _plain(part: Mapping[str, Any]) -> Part:
    text = part.get("text") if part.get("text") is not None else part.get("refusal")
    return {"type": "reasoning", "content": _text(text)["content"]} if part.get("thought") is True else _text(text)


def _thought(part: Mapping[str, Any]) -> Part:
    said = [part.get(key) for key in ("thinking", "text", "content", "summary")]
    texts = (_said(value) for value in said if value)
    return {"type": "reasoning", "content": next(texts, "")}


def _said(value: Any) -> str:
    pieces = [piece if isinstance(piece, str) else sse.at(piece, "text") for piece in _several(value)]
    return "\n".join(piece for piece in pieces if isinstance(piece, str))


def _result(part: Mapping[str, Any]) -> Part:
    inner = next((part[k] for k in ("functionResponse", "function_response", "toolResult") if k in part), part)
    ids = (sse.at(inner, key) for key in ("tool_use_id", "call_id", "toolUseId", "id", "name"))
    said = (sse.at(inner, key) for key in ("response", "output", "content"))
    reply = next((value for value in said if value is not None), None)
    if isinstance(reply, bounds.SEQUENCES):
        reply = _parts(reply)
    name = next((value for value in ids if value is not None), None)
    return {"type": "tool_call_response", **({} if name is None else {"id": name}), "response": reply}


def _tool_use(part: Mapping[str, Any]) -> Part:
    inner = next((part[k] for k in ("functionCall", "function_call", "toolUse") if k in part), part)
    at = "args" if sse.at(inner, "args") is not None else "arguments"
    ids = (sse.at(inner, key) for key in ("call_id", "toolUseId", "id"))
    return _call({"id": next(filter(None, ids), None)}, inner, at)


def _mime(inner: Mapping[str, Any]) -> str | None:
    named = (sse.text(inner.get(key)) for key in ("mime_type", "mimeType", "media_type"))
    data = (sse.text(inner.get(key)) or "" for key in ("url", "file_data", "data"))
    told = (text[5:261].partition(";")[0] for text in data if text.startswith("data:"))
    return next(filter(None, (*named, *told)), None)


def _size(base64: str) -> int:
    length = len(base64) - (base64.find(",", 0, 261) + 1 if base64.startswith("data:") else 0)
    return max(length * 3 // 4 - base64[-2:].count("="), 0)


def _media(part: Mapping[str, Any]) -> Part:
    """An image, a sound or a file: by its address or id, or with no more than its kind and its size."""
    kind = sse.text(part.get("type")) or next(iter(part), "")
    found = next((part[key] for key in _HOLDERS if part.get(key) is not None), part)
    inner: Mapping[str, Any] = found if isinstance(found, Mapping) else {"url": found}
    mime = _mime(inner)
    address = next((a for key in _ADDRESSES if (a := sse.text(inner.get(key)))), None)
    if address is not None and not is_remote(address):
        inner, address = {"data": address}, None
    modality = next((m for m in _MODALITIES if m in (mime or "").partition("/")[0] or m in kind), "document")
    said = {"modality": modality, **({"mime_type": mime} if mime else {})}
    if address is not None:
        return {"type": "uri", **said, "uri": address}
    if file := sse.text(inner.get("file_id")):
        return {"type": "file", **said, "file_id": file}
    data = sse.text(inner.get("data")) or sse.text(inner.get("file_data"))
    size = {} if data is None else {"byte_size": _size(data)}
    return {"type": "blob", **said, **size, "content": ""}


_HOLDERS = (
    "image_url", "input_audio", "source", "inlineData", "inline_data", "fileData", "file_data", "file",
    "video_url", "document_url", "image",
)  # fmt: skip
_ADDRESSES = ("url", "fileUri", "file_uri", "file_url", "uri")
_READ_AS = {
    _plain: ("text", "input_text", "output_text", "refusal", "summary_text"),
    _thought: ("thinking", "reasoning", "reasoning_text", "redacted_thinking"),
    _tool_use: ("tool_use", "function_call", "custom_tool_call", "functionCall", "toolUse"),
    _result: (
        *("tool_result", "function_call_output", "custom_tool_call_output"),
        *("functionResponse", "function_response", "toolResult"),
    ),
    _media: (
        *("image", "image_url", "input_image", "audio", "input_audio", "video", "video_url", "input_video"),
        *("document", "document_url", "file", "input_file", "inlineData", "inline_data", "fileData", "file_data"),
    ),
}
_KINDS = {kind: read for read, kinds in _READ_AS.items() for kind in kinds}


# ---- answers


def _finish(reason: Any) -> dict[str, str]:
    text = (sse.text(reason) or "").lower()
    return {"finish_reason": _FINISH.get(text, text)} if text else {}


def _chosen(answer: Mapping[str, Any]) -> Iterator[Message]:
    for choice in _listed(answer.get("choices")):
        said = sse.at(choice, "message")
        message = _message(said) if isinstance(said, Mapping) else _message({"content": sse.at(choice, "text")})
        yield {**message, "role": "assistant", **_finish(sse.at(choice, "finish_reason"))}


def _candidates(answer: Mapping[str, Any]) -> Iterator[Message]:
    for candidate in _listed(answer.get("candidates")):
        parts = _parts(sse.at(candidate, "content", "parts") or [])
        yield {"role": "assistant", "parts": parts, **_finish(sse.at(candidate, "finishReason"))}


def _items(answer: Mapping[str, Any]) -> Iterator[Message]:
    output = answer["output"]
    if isinstance(output, Mapping):  # the envelope of some vendors
        yield from output_messages({**output, "stopReason": answer.get("stopReason")})
        return
    parts: list[Part] = []
    for item in _several(output):
        is_message = sse.at(item, "type") == "message"
        parts += _parts(item.get("content")) if is_message else [_part(item)]
    reason = sse.at(answer.get("incomplete_details"), "reason") or answer.get("status")
    yield {"role": "assistant", "parts": parts, **_finish(reason)}


def _blocks(answer: Mapping[str, Any]) -> Iterator[Message]:
    yield {"role": "assistant", "parts": _parts(answer["content"]), **_finish(answer.get("stop_reason"))}


def _told(answer: Mapping[str, Any]) -> Iterator[Message]:
    if isinstance(answer["message"], Mapping) and "error" not in answer:
        reasons = (answer.get(key) for key in ("finish_reason", "done_reason", "stopReason"))
        yield {**_message(answer["message"]), **_finish(next(filter(None, reasons), None))}


def _generated(answer: Mapping[str, Any]) -> Iterator[Message]:
    text = answer.get("response") or answer.get("text")
    yield {"role": "assistant", "parts": _parts(sse.text(text)), **_finish(answer.get("done_reason"))}


_ANSWERS = {
    "choices": _chosen,
    "candidates": _candidates,
    "output": _items,
    "content": _blocks,
    "message": _told,
    "response": _generated,
    "text": _generated,
}
