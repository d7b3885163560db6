"""A local stand-in for Mistral's API: chat, agents, fill-in-the-middle, embeddings, conversations and OCR."""

import contextlib
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The bodies of errors: what the API says of most, and what its gateway says of a key that it does not know.
LIMITED = {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}
UNKNOWN_KEY = {"detail": "Unauthorized"}
_WHEN = "2026-11-01T10:00:00Z"


class _Handler(BaseHTTPRequestHandler):
    """One connection; the base class calls `do_POST` for each request on it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # noqa: A002 - the base class's signature
        """Write nothing."""

    def do_POST(self):
        """Answer, or fail where the server was told to."""
        server, asked = self.server, json.loads(self.rfile.read(int(self.headers["content-length"])))
        if server.failure is not None:
            self._send(*server.failure)
            return
        server.billed += 1
        kind = self.path.partition("/v1/")[2].partition("#")[0]
        kind = "conversations" if kind.startswith("conversations/") else kind
        if asked.get("stream") and kind == "conversations":
            self._stream(map(_event, _talk(asked, server.usage, uuid.uuid4().hex)))
        elif asked.get("stream"):
            self._stream([*map(_event, _chunks(asked, server.usage, uuid.uuid4().hex)), b"data: [DONE]"])
        else:
            self._send(200, _ANSWERS[kind](asked, server.usage, uuid.uuid4().hex))

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for data in events:
            self.wfile.write(b"%x\r\n%b\n\n\r\n" % (len(data) + 2, data))
        self.wfile.write(b"0\r\n\r\n")


def _event(chunk):
    """An event; those of a conversation have their type before their data, too."""
    name = f"event: {chunk['type']}\n" if "type" in chunk else ""
    return f"{name}data: {json.dumps(chunk)}".encode()


def _chat(asked, usage, ident):
    message = {"role": "assistant", "content": "Danube, Rhine, Loire.", "tool_calls": None}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    model = asked.get("model", "mistral-small-latest")
    return {"id": ident, "object": "chat.completion", "created": 1, "model": model, "choices": choices, "usage": usage}


def _chunks(asked, usage, ident):
    """As the API does it, the usage is on the last chunk with a choice, whether it was asked for or not."""
    whole = _chat(asked, usage, ident) | {"object": "chat.completion.chunk"}
    for text, reason in (("Danube, ", None), ("Rhine, ", None), ("Loire.", "stop")):
        delta = {"role": "assistant", "content": text}
        chunk = whole | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        yield chunk if reason else {key: value for key, value in chunk.items() if key != "usage"}


def _embeddings(asked, usage, ident):
    used = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"], "completion_tokens": 0}
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}]
    return {"id": ident, "object": "list", "model": asked["model"], "data": data, "usage": used}


def _conversation(_asked, usage, ident):
    """Two messages of one answer; only the conversation has usage, and only the messages have a model."""
    said = {"object": "entry", "type": "message.output", "role": "assistant", "model": "mistral-small-latest"}
    times = {"created_at": _WHEN, "completed_at": _WHEN}
    outputs = [said | times | {"id": f"msg_{number}_{ident}", "content": "Danube."} for number in range(2)]
    used = usage | {"connector_tokens": None, "connectors": None}
    return {"object": "conversation.response", "conversation_id": f"conv_{ident}", "outputs": outputs, "usage": used}


def _talk(_asked, usage, ident):
    """A streamed answer: the parts of its message, and in the end the usage."""
    delta = {"type": "message.output.delta", "output_index": 0, "content_index": 0, "role": "assistant"}
    delta |= {"model": "mistral-small-latest", "id": f"msg_{ident}", "created_at": _WHEN}
    yield {"type": "conversation.response.started", "created_at": _WHEN, "conversation_id": f"conv_{ident}"}
    yield from (delta | {"content": text} for text in ("Danube, ", "Rhine, ", "Loire."))
    yield {"type": "conversation.response.done", "created_at": _WHEN, "usage": usage}


def _ocr(asked, _usage, _ident):
    pages = [{"index": n, "markdown": "text", "images": [], "dimensions": None} for n in range(3)]
    return {"pages": pages, "model": asked["model"], "usage_info": {"pages_processed": 3, "doc_size_bytes": 99}}


_ANSWERS = {
    "agents/completions": _chat,
    "chat/completions": _chat,
    "conversations": _conversation,
    "embeddings": _embeddings,
    "fim/completions": _chat,
    "ocr": _ocr,
}


@contextlib.contextmanager
def mistral_server(*, input_tokens, output_tokens, cached_tokens):
    """A server on 127.0.0.1; `url` is for the SDK, `billed` counts answers, `failure` is a status and body to send."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.billed, server.failure = 0, None
    server.usage = {
        "prompt_tokens": input_tokens, "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens, "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }  # fmt: skip
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
