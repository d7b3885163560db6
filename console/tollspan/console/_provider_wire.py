"""Payloads of a local stand-in provider: pure functions from a decided reply to JSON and server-sent events (SSE).

Three wire formats are spoken: `chat` (OpenAI chat completions), `responses` (OpenAI responses) and `messages`
(Anthropic messages). The shapes follow the vendors' public API references, as typed by openai 3.52 and anthropic 2.11.
No model is behind them: texts are filler of known length, or the simplest value of the schema that was asked for.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Literal

Flavour = Literal["chat", "responses", "messages"]
Json = dict[str, Any]

BYTES_PER_TOKEN = 4
_INPUT_FIELDS = ("messages", "system", "input", "instructions", "tools")
# Labels, references and media: a provider does not count their characters as text.
_NOT_TEXT = frozenset({"type", "role", "id", "cache_control", "image_url", "source", "input_audio", "file_data"})
# Three letters and a blank: one word is one token, so that the text and its usage agree.
_FILLER = "all you see was set for you now "
_FORMATS = {"date-time": "2000-01-01T00:00:00Z", "date": "2000-01-01", "uuid": "00000000-0000-4000-8000-000000000000"}
# Ending of the path, names of the maximum, and the words for: cut by it, ended as text, ended as a tool call.
_FLAVOURS: dict[Flavour, tuple[str, tuple[str, ...], tuple[str, str, str]]] = {
    "chat": ("/chat/completions", ("max_completion_tokens", "max_tokens"), ("length", "stop", "tool_calls")),
    "responses": ("/responses", ("max_output_tokens",), ("incomplete", "completed", "completed")),
    "messages": ("/messages", ("max_tokens",), ("max_tokens", "end_turn", "tool_use")),
}
# Endpoints that count the input of a request, for free.
_COUNTS = ("/messages/count_tokens", "/responses/input_tokens")
_ERRORS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}

dumps = json.JSONEncoder(separators=(",", ":")).encode


class Refusal(Exception):  # noqa: N818 - it becomes an error status, never a traceback
    """A request that a provider answers with an error status, unbilled; `args` are the status and the message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A decided answer. Counts are in tokens; `output` and `reasoning` are sums over the `n` choices.

    `cached` and `written` are parts of `input`, `reasoning` is a part of `output`. `text` holds a tool's arguments
    (JSON) if `tool`, its name, is set. `cut` says that the request's maximum ended it; `pieces` is the number of
    text events of a stream.
    """

    ident: str
    created: int
    model: str
    text: str
    tool: str | None
    cut: bool
    n: int
    pieces: int
    input: int
    cached: int
    written: int
    output: int
    reasoning: int

    def split(self) -> list[str]:
        """Cut the text into at most `pieces` parts of nearly equal length, none of them empty."""
        count = min(self.pieces, len(self.text))
        edges = [len(self.text) * step // count for step in range(count + 1)] if count else []
        return [self.text[start:end] for start, end in pairwise(edges)]


def flavour_of(path: str) -> Flavour | None:
    """Tell the wire format of a path by its ending, so that any prefix (version, deployment) is served."""
    return next((flavour for flavour, (ending, _, _) in _FLAVOURS.items() if path.endswith(ending)), None)


def counted(path: str, raw: bytes) -> Json | None:
    """Count the input of a request, where the path asks for that; `Refusal` (400) of what is no such request."""
    if not path.endswith(_COUNTS):
        return None
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refusal(400, "the body is not JSON") from error
    if extra := body.keys() & {"max_tokens", "max_output_tokens", "stream", "temperature"}:
        raise Refusal(400, f"{min(extra)}: Extra inputs are not permitted")
    return {"input_tokens": input_tokens(body)}


def output_limit(flavour: Flavour, body: Mapping[str, Any]) -> int | None:
    """Return the request's maximum of output tokens for each choice, None if it has none."""
    return next((body[name] for name in _FLAVOURS[flavour][1] if body.get(name) is not None), None)


def checked(flavour: Flavour, raw: bytes) -> Json:
    """Parse a request's body; raise `Refusal` (400) for one that the vendor would not take either."""
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refusal(400, "the body is not JSON") from error
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise Refusal(400, "the body must be an object with a `model`")
    limit = output_limit(flavour, body)
    if limit is None and flavour == "messages":
        raise Refusal(400, "max_tokens: Field required")
    if any(value is not None and (type(value) is not int or value < 1) for value in (limit, body.get("n"))):
        raise Refusal(400, "n and the maximum of tokens must be integers of at least 1")
    return body


def count_tokens(text: str) -> int:
    """Count tokens as ceil(UTF-8 bytes / 4): a rule of this provider, not a tokenizer."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def input_tokens(body: Mapping[str, Any]) -> int:
    """Count the tokens of a request: ceil(UTF-8 bytes / 4) of all its prompts, instructions and tools, at least 1."""
    return max(1, math.ceil(sum(_text_bytes(body.get(name)) for name in _INPUT_FIELDS) / BYTES_PER_TOKEN))


def _text_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list):
        return sum(map(_text_bytes, value))
    if isinstance(value, dict):
        return sum(_text_bytes(item) for name, item in value.items() if name not in _NOT_TEXT)
    return 0


def visible_text(fixed: str | None, tokens: int, *, cut: bool) -> str:
    """Return `fixed`, shortened to fit `tokens` (by one byte at least) when `cut`; or filler of exactly `tokens`."""
    if fixed is None:
        return (_FILLER * (tokens * BYTES_PER_TOKEN // len(_FILLER) + 1))[: max(0, tokens * BYTES_PER_TOKEN - 1)]
    data = fixed.encode()
    return data[: max(0, min(tokens * BYTES_PER_TOKEN, len(data) - 1))].decode(errors="ignore") if cut else fixed


def schema_asked(body: Mapping[str, Any]) -> Json | None:
    """Return the JSON schema that the answer must fit (any object for JSON mode), None for plain text."""
    asked = body.get("response_format") or (body.get("text") or {}).get("format") or body.get("output_format")
    asked = asked or (body.get("output_config") or {}).get("format") or {}
    schema: Json | None = asked.get("json_schema", asked).get("schema")
    return {"type": "object"} if asked.get("type") == "json_object" else schema


def tool_asked(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return name and arguments (JSON) of the tool call that the request demands, None if it demands none."""
    choice = body.get("tool_choice")
    choice = {"type": choice} if isinstance(choice, str) else choice or {}
    if choice.get("type") not in {"required", "any", "tool", "function"}:
        return None
    name = choice.get("function", choice).get("name")
    tools: list[Json] = [tool.get("function", tool) for tool in body.get("tools") or []]
    tool = next((tool for tool in tools if name in {None, tool.get("name")}), None)
    if tool is None:
        return None
    return tool["name"], dumps(instance_of(tool.get("parameters") or tool.get("input_schema") or {"type": "object"}))


def instance_of(schema: Json, root: Json | None = None) -> Any:
    """Return the simplest value that fits a JSON schema: required properties only, null where it may be.

    A tiny subset: numbers are whole; `pattern`, `multipleOf` and the merging of `allOf` are not honoured.
    """
    root = root or schema
    if "$ref" in schema:
        return instance_of(reduce(lambda at, name: at[name], schema["$ref"].split("/")[1:], root), root)
    options = next((schema[name] for name in ("anyOf", "oneOf", "allOf") if name in schema), None)
    if options is not None:
        return instance_of(min(options, key=lambda option: option.get("type") != "null"), root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "null")
    return _MAKERS[kind if isinstance(kind, str) else min(kind, key=lambda name: name != "null")](schema, root)


def _number(schema: Json, _root: Json) -> int:
    low: int = math.ceil(max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1))
    high: int = min(math.floor(schema.get("maximum", low)), math.ceil(schema.get("exclusiveMaximum", low + 1)) - 1)
    return min(low, high)


_MAKERS: dict[str, Callable[[Json, Json], Any]] = {
    "object": lambda schema, root: {k: instance_of(schema["properties"][k], root) for k in schema.get("required", ())},
    "array": lambda schema, root: [instance_of(schema["items"], root) for _ in range(schema.get("minItems", 0))],
    "string": lambda schema, _root: _FORMATS.get(schema.get("format", ""), "x" * schema.get("minLength", 0)),
    "number": _number,
    "integer": _number,
    "boolean": lambda _schema, _root: False,
    "null": lambda _schema, _root: None,
}


def _end(flavour: Flavour, reply: Reply) -> str:
    cut, text, tool = _FLAVOURS[flavour][2]
    return cut if reply.cut else text if reply.tool is None else tool


def payload(flavour: Flavour, reply: Reply) -> Json:
    """Return the JSON answer of a request without `stream`."""
    end = _end(flavour, reply)
    if flavour == "chat":
        return _chat(reply)
    if flavour == "responses":
        return _response(reply, end, [_item(reply, end, reply.text)])
    return _message(reply, [_block(reply, reply.text)], end, reply.output)


def events(flavour: Flavour, reply: Reply, body: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the SSE events of a streamed answer; chat's usage only if `body` asks for it, as at the vendor."""
    if flavour == "chat":
        wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        yield from (f"data: {dumps(chunk)}\n\n".encode() for chunk in _chat_chunks(reply, include_usage=wanted))
        yield b"data: [DONE]\n\n"
    elif flavour == "responses":
        for number, event in enumerate(_response_events(reply)):
            yield _named_event({**event, "sequence_number": number})
    else:
        yield from map(_named_event, _message_events(reply))


def _named_event(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: {dumps(event)}\n\n".encode()


def models() -> Json:
    """Return the list of models in a form that both vendors' clients read; any other model is answered too."""
    model = {"id": "local-model", "object": "model", "created": 0, "owned_by": "local provider"}
    model |= {"type": "model", "display_name": "made up answers", "created_at": "1970-01-01T00:00:00Z"}
    return {"object": "list", "data": [model], "has_more": False}


def error(flavour: Flavour | None, status: int, message: str) -> Json:
    """Return the body of an error status in the vendor's form, OpenAI's for a path of neither."""
    other = "api_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    kind = _ERRORS.get(status, other)
    if flavour == "messages":
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def error_event(flavour: Flavour) -> bytes:
    """Return the SSE event of a failure in mid-stream."""
    body = error(flavour, HTTPStatus.INTERNAL_SERVER_ERROR, "local provider: a chosen fault")
    if flavour == "chat":
        return f"data: {dumps(body)}\n\n".encode()
    # OpenAI's responses nest the fields under `error`, although its reference shows them flat.
    return _named_event({"type": "error", **body, "sequence_number": 2} if flavour == "responses" else body)


def _usage(reply: Reply, into: str, out: str) -> Json:
    return {
        f"{into}_tokens": reply.input,
        f"{into}_tokens_details": {"cached_tokens": reply.cached, "cache_write_tokens": reply.written},
        f"{out}_tokens": reply.output,
        f"{out}_tokens_details": {"reasoning_tokens": reply.reasoning},
        "total_tokens": reply.input + reply.output,
    }


def _chat_base(reply: Reply, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{reply.ident}",
        "object": kind,
        "created": reply.created,
        "model": reply.model,
        "service_tier": "default",
        "system_fingerprint": "fp_local_provider",
    }


def _tool_call(reply: Reply, arguments: str, index: int) -> Json:
    function = {"name": reply.tool, "arguments": arguments}
    return {"id": f"call_{reply.ident}_{index}", "type": "function", "function": function}


def _chat(reply: Reply) -> Json:
    def choice(index: int) -> Json:
        message: Json = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
        if reply.tool is not None:
            message |= {"content": None, "tool_calls": [_tool_call(reply, reply.text, index)]}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": _end("chat", reply)}

    choices = [choice(index) for index in range(reply.n)]
    return {**_chat_base(reply, "chat.completion"), "choices": choices, "usage": _usage(reply, "prompt", "completion")}


def _chat_chunks(reply: Reply, *, include_usage: bool) -> Iterator[Json]:
    base = _chat_base(reply, "chat.completion.chunk")
    tail = {"usage": None} if include_usage else {}
    for step, text in enumerate(["", *reply.split(), None]):
        for index in range(reply.n):
            end, delta = (
                (_end("chat", reply), {}) if text is None else (None, _delta(reply, text, index, first=not step))
            )
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
            yield {**base, "choices": [choice], **tail}
    if include_usage:
        yield {**base, "choices": [], "usage": _usage(reply, "prompt", "completion")}


def _delta(reply: Reply, text: str, index: int, *, first: bool) -> Json:
    role = {"role": "assistant", "refusal": None} if first else {}
    if reply.tool is None:
        return {**role, "content": text}
    call = _tool_call(reply, text, index) if first else {"function": {"arguments": text}}
    return {**role, "tool_calls": [{"index": 0, **call}]}


def _response(reply: Reply, status: str, output: list[Json]) -> Json:
    return {
        "id": f"resp_{reply.ident}",
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": True,
        "service_tier": "default",
        "tool_choice": "auto",
        "tools": [],
        "usage": None if status == "in_progress" else _usage(reply, "input", "output"),
    }


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(reply: Reply, status: str, text: str | None) -> Json:
    if reply.tool is not None:
        call = {"call_id": f"call_{reply.ident}", "name": reply.tool, "arguments": text or ""}
        return {"id": f"fc_{reply.ident}", "type": "function_call", "status": status, **call}
    content = [] if text is None else [_part(text)]
    return {"id": f"msg_{reply.ident}", "type": "message", "status": status, "role": "assistant", "content": content}


def _response_events(reply: Reply) -> Iterator[Json]:
    end, begun = _end("responses", reply), _response(reply, "in_progress", [])
    item = _item(reply, end, reply.text)
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", "output_index": 0, "item": _item(reply, "in_progress", None)}
    yield from _text_events(reply, item["id"]) if reply.tool is None else _call_events(reply, item["id"])
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": f"response.{end}", "response": _response(reply, end, [item])}


def _text_events(reply: Reply, item_id: str) -> Iterator[Json]:
    at = {"item_id": item_id, "output_index": 0, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": _part("")}
    for text in reply.split():
        yield {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": reply.text, "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": _part(reply.text)}


def _call_events(reply: Reply, item_id: str) -> Iterator[Json]:
    at = {"item_id": item_id, "output_index": 0}
    for text in reply.split():
        yield {"type": "response.function_call_arguments.delta", **at, "delta": text}
    yield {"type": "response.function_call_arguments.done", **at, "name": reply.tool, "arguments": reply.text}


def _message_usage(reply: Reply, output: int) -> Json:
    """Anthropic's `input_tokens` leaves out what was read from and written to the cache."""
    return {
        "input_tokens": reply.input - reply.cached - reply.written,
        "cache_creation_input_tokens": reply.written,
        "cache_read_input_tokens": reply.cached,
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": min(reply.reasoning, output)},
    }


def _message(reply: Reply, content: list[Json], stop_reason: str | None, output: int) -> Json:
    lifetimes = {"ephemeral_5m_input_tokens": reply.written, "ephemeral_1h_input_tokens": 0}
    usage = {**_message_usage(reply, output), "cache_creation": lifetimes, "service_tier": "standard"}
    return {
        "id": f"msg_{reply.ident}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _block(reply: Reply, text: str) -> Json:
    if reply.tool is None:
        return {"type": "text", "text": text}
    arguments = {} if reply.cut or not text else json.loads(text)  # cut arguments are no JSON any more
    return {"type": "tool_use", "id": f"toolu_{reply.ident}", "name": reply.tool, "input": arguments}


def _message_events(reply: Reply) -> Iterator[Json]:
    kind, key = ("text_delta", "text") if reply.tool is None else ("input_json_delta", "partial_json")
    # One token at the start: the vendor's first count is a beginning, the last one is the total.
    yield {"type": "message_start", "message": _message(reply, [], None, 1)}
    yield {"type": "content_block_start", "index": 0, "content_block": _block(reply, "")}
    yield {"type": "ping"}
    for text in reply.split():
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": kind, key: text}}
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": _end("messages", reply), "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": _message_usage(reply, reply.output)}
    yield {"type": "message_stop"}
