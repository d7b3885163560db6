"""huggingface_hub, against the wire formats of its router (huggingface.co/docs, "Inference Providers") and of TGI."""

from importlib.util import find_spec

import pytest
from contract import *  # noqa: F403
from contract import Case, driven
from wire_server import Reply, sse

huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
USAGE = {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25}
COUNTED = {"tokens_in": 18, "tokens_out": 7}
_ONE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": MODEL,
    "system_fingerprint": "f",
}
_MESSAGE = {"role": "assistant", "content": "Danube."}
_CHAT = Reply(_ONE | {"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}], "usage": USAGE})


def _delta(text, reason=None):
    return _ONE | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}]}


_CHAT_STREAM = sse(_delta("Dan"), _delta("ube"), _delta(".", "stop"), _ONE | {"choices": [], "usage": USAGE}, done=True)
_COUNTS = {"x-prompt-tokens": "18", "x-generated-tokens": "7"}
_TEXT = Reply([{"generated_text": "Danube."}], headers=_COUNTS)


def _token(text, **more):
    return {
        "index": 1,
        "token": {"id": 1, "text": text, "logprob": -0.1, "special": False},
        "generated_text": None,
    } | more


_DETAILS = {"finish_reason": "length", "generated_tokens": 7, "seed": None, "input_length": 18}
_TEXT_STREAM = sse(
    _token("Dan", details=None),
    _token("ube", details=None),
    _token(".", generated_text="Danube.", details=_DETAILS),
)
_REFUSED = Reply({"error": "no", "error_type": "validation"}, status=422)


def _client(url, *, asynchronous, path=""):
    made = huggingface_hub.AsyncInferenceClient if asynchronous else huggingface_hub.InferenceClient
    return made(model=f"{url}{path}", token="hf_test")


def _case(name, method, reply, asked, *, asynchronous, path="", **more):
    owner = "_generated._async_client:AsyncInferenceClient" if asynchronous else "_client:InferenceClient"
    return Case(
        name=name,
        site=f"huggingface_hub.inference.{owner}.{method}",
        client=lambda url: _client(url, asynchronous=asynchronous, path=path),
        run=lambda client: getattr(client, method)(**asked),
        reply=reply,
        asynchronous=asynchronous,
        streams=asked.get("stream", False),
        provider="huggingface",
        refusal=_REFUSED,
        bounded=False,  # prices are those of the providers behind it, or of a machine
        **({"usage": COUNTED, "model": None} | more),
    )


_ASK = {"messages": [{"role": "user", "content": "One river."}], "model": None, "max_tokens": 50}
_CHATTED = {"path": "/v1", "model": MODEL}
_PROMPT = {"prompt": "One river.", "max_new_tokens": 50}
_STREAMED = {"stream": True, "details": True}
_PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xff\xff?\0\5\xfe"
    b"\2\xfe\xdc\xccY\xe7\0\0\0\0IEND\xaeB`\x82"
)


def _both(name, method, reply, asked, **more):
    return [_case(name, method, reply, asked, asynchronous=asynchronous, **more) for asynchronous in (False, True)]


_VECTOR = {
    "usage": None,
    "operation": "embeddings",
    "path": "/hf-inference/models/BAAI/bge-small-en-v1.5",
    "model": "BAAI/bge-small-en-v1.5",
}
_VECTORS = _both("vectors", "feature_extraction", Reply([[0.1, 0.2]]), {"text": "One river."}, **_VECTOR)
CASES = [
    *_both("chat", "chat_completion", _CHAT, _ASK, **_CHATTED),
    *_both(
        "chat stream",
        "chat_completion",
        _CHAT_STREAM,
        _ASK | {"stream": True, "stream_options": {"include_usage": True}},
        **_CHATTED,
    ),
    *_both("text", "text_generation", _TEXT, _PROMPT, operation="text_completion"),
    *_both("text stream", "text_generation", _TEXT_STREAM, _PROMPT | _STREAMED, operation="text_completion"),
    *(_VECTORS if find_spec("numpy") else ()),  # which they are given in
    *_both(
        "labels",
        "text_classification",
        Reply([[{"label": "river", "score": 0.9}]]),
        {"text": "One river."},
        usage=None,
        operation="generate_content",
    ),
]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_an_image_is_counted(server, instrumented, asynchronous):
    """An answer that is an image is one image."""
    pytest.importorskip("PIL", reason="huggingface_hub gives images by Pillow")
    server.reply = Reply(_PNG, content_type="image/png")
    case = _case("image", "text_to_image", None, {"prompt": "One river."}, asynchronous=asynchronous)

    async def use(result):
        return result.size

    with instrumented() as seen:
        assert driven(case, server, use) == (1, 1)
        assert seen.end.usage == {"images": 1}
