"""A server that answers as OpenAI, Anthropic, Gemini and Bedrock do, always the same: a process of its own.

    python benchmarks/_answers.py

It prints its URL, and lives until its standard input ends. An answer has as many pieces of text as the request's
maximum of output tokens; a stream sends each of them as an event and an HTTP chunk of its own.
"""

import json
import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE, INPUT = " word", 22
_MAXIMUM = re.compile(rb'"(?:max_tokens|maxOutputTokens|maxTokens)":\s*(\d+)')
_STREAM = re.compile(rb'"stream":\s*true')
_JSON, _SSE, _EVENTS = "application/json", "text/event-stream", "application/vnd.amazon.eventstream"


def openai_answer(pieces):
    message = {"role": "assistant", "content": PIECE * pieces, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _json(_openai("chat.completion", choices=[choice], usage=_openai_usage(pieces)))


def openai_stream(pieces):
    first = {"role": "assistant", "content": "", "refusal": None}
    deltas = [(first, None), *[({"content": PIECE}, None)] * pieces, ({}, "stop")]
    for delta, finish in deltas:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        yield _sse(_openai("chat.completion.chunk", choices=[choice], usage=None))
    yield _sse(_openai("chat.completion.chunk", choices=[], usage=_openai_usage(pieces)))
    yield b"data: [DONE]\n\n"


def _openai(kind, **rest):
    head = {"id": f"chatcmpl-{'1' * 24}", "object": kind, "created": 1_760_000_000, "model": "gpt-4o-mini-2024-07-18"}
    return {**head, "service_tier": "default", "system_fingerprint": "fp_1", **rest}


def _openai_usage(pieces):
    details = {"reasoning_tokens": 0, "audio_tokens": 0}
    return {
        "prompt_tokens": INPUT, "completion_tokens": pieces, "total_tokens": INPUT + pieces,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}, "completion_tokens_details": details,
    }  # fmt: skip


def anthropic_answer(pieces):
    content = [{"type": "text", "text": PIECE * pieces}]
    return _json(_anthropic(content=content, stop_reason="end_turn", usage=_anthropic_usage(pieces)))


def anthropic_stream(pieces):
    yield _named(
        {"type": "message_start", "message": _anthropic(content=[], stop_reason=None, usage=_anthropic_usage(1))}
    )
    yield _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    delta = {"type": "text_delta", "text": PIECE}
    yield from [_named({"type": "content_block_delta", "index": 0, "delta": delta})] * pieces
    yield _named({"type": "content_block_stop", "index": 0})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _named({"type": "message_delta", "delta": end, "usage": {"output_tokens": pieces}})
    yield _named({"type": "message_stop"})


def _anthropic(**rest):
    head = {"id": f"msg_{'1' * 24}", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929"}
    return {**head, "stop_sequence": None, **rest}


def _anthropic_usage(pieces):
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": INPUT, **cache, "output_tokens": pieces, "service_tier": "standard"}


def gemini_answer(pieces):
    return _json(_gemini(PIECE * pieces, pieces, finish="STOP"))


def gemini_stream(pieces):
    for seen in range(1, pieces + 1):
        yield _sse(_gemini(PIECE, seen, finish="STOP" if seen == pieces else None))


def _gemini(text, pieces, finish):
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    details = [{"modality": "TEXT", "tokenCount": INPUT}]
    usage = {"promptTokenCount": INPUT, "candidatesTokenCount": pieces, "totalTokenCount": INPUT + pieces}
    head = {"modelVersion": "gemini-2.5-flash", "responseId": "1" * 24}
    return {"candidates": [candidate], "usageMetadata": {**usage, "promptTokensDetails": details}, **head}


def bedrock_answer(pieces):
    message = {"role": "assistant", "content": [{"text": PIECE * pieces}]}
    return _json({"output": {"message": message}, "stopReason": "end_turn", **_bedrock_end(pieces)})


def bedrock_stream(pieces):
    yield _framed("messageStart", {"role": "assistant"})
    yield from [_framed("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": PIECE}})] * pieces
    yield _framed("contentBlockStop", {"contentBlockIndex": 0})
    yield _framed("messageStop", {"stopReason": "end_turn"})
    yield _framed("metadata", _bedrock_end(pieces))


def _bedrock_end(pieces):
    usage = {"inputTokens": INPUT, "outputTokens": pieces, "totalTokens": INPUT + pieces}
    return {"usage": usage, "metrics": {"latencyMs": 1}}


def _json(body):
    return json.dumps(body, separators=(",", ":")).encode()


def _sse(event):
    return b"data: %b\n\n" % _json(event)


def _named(event):
    return b"event: %b\n%b" % (event["type"].encode(), _sse(event))


def _framed(kind, payload):
    """A message of AWS's event stream: lengths and their checksum, headers, payload, checksum of all that."""
    said = {":event-type": kind, ":content-type": _JSON, ":message-type": "event"}
    headers = b"".join(
        struct.pack(f">B{len(name)}sBH{len(value)}s", len(name), name.encode(), 7, len(value), value.encode())
        for name, value in said.items()
    )
    body = _json(payload)
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


ANSWERS: tuple[tuple[str, bool, str, Callable], ...] = (
    ("/chat/completions", False, _JSON, openai_answer),
    ("/chat/completions", True, _SSE, openai_stream),
    ("/messages", False, _JSON, anthropic_answer),
    ("/messages", True, _SSE, anthropic_stream),
    (":generateContent", False, _JSON, gemini_answer),
    (":streamGenerateContent", False, _SSE, gemini_stream),
    ("/converse", False, _JSON, bedrock_answer),
    ("/converse-stream", False, _EVENTS, bedrock_stream),
)
"""By the end of the path, and whether the body asks for a stream."""


@lru_cache(maxsize=64)
def answer_to(path: str, stream: bool, pieces: int) -> bytes:
    """All that is sent: status, headers and body."""
    kind, make = next((kind, make) for end, asked, kind, make in ANSWERS if path.endswith(end) and asked == stream)
    made = make(pieces)
    if isinstance(made, bytes):
        return _head(kind, f"content-length: {len(made)}") + made
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in made)
    return _head(kind, "transfer-encoding: chunked") + chunks + b"0\r\n\r\n"


def _head(kind, length):
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n\r\n".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = _MAXIMUM.search(body)
        pieces = int(asked[1]) if asked else 1
        self.wfile.write(answer_to(self.path.partition("?")[0], bool(_STREAM.search(body)), pieces))

    def log_message(self, *_arguments):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
