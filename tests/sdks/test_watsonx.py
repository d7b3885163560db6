"""ibm-watsonx-ai, against the wire format of watsonx.ai (cloud.ibm.com/apidocs/watsonx-ai).

The SDK wants an address of IBM's cloud: below it, its HTTP clients are led to a local server.
"""

import base64
import json

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply, sse

ibm_watsonx_ai = pytest.importorskip("ibm_watsonx_ai", reason="ibm-watsonx-ai is not installed")

import httpx  # noqa: E402 - it comes with the SDK
from ibm_watsonx_ai import foundation_models as found  # noqa: E402

MODEL = "ibm/granite-4-h-small"
PROJECT = "11111111-2222-3333-4444-555555555555"
USAGE = {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25}
COUNTED = {"tokens_in": 18, "tokens_out": 7}
_ONE = {"id": "chatcmpl-1", "object": "chat.completion", "model_id": MODEL, "model": MODEL, "created": 1700000000}
_ONE |= {"model_version": "1.0.0", "created_at": "2026-01-01T00:00:00Z"}
_MESSAGE = {"role": "assistant", "content": "Danube."}
_CHAT = Reply(_ONE | {"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}], "usage": USAGE})


def _delta(text, reason=None):
    return _ONE | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}]}


_CHAT_STREAM = sse(_delta("Dan"), _delta("ube"), _delta(".", "stop"), _ONE | {"choices": [], "usage": USAGE})


def _result(text, tokens_in, tokens_out, reason):
    counts = {"generated_token_count": tokens_out, "input_token_count": tokens_in}
    results = [{"generated_text": text, "stop_reason": reason} | counts]
    return {"model_id": MODEL, "created_at": "2026-01-01T00:00:00Z", "results": results}


_TEXT = Reply(_result("Danube.", 18, 7, "eos_token"))
_TEXT_STREAM = sse(
    _result("", 18, 0, "not_finished"),
    _result("Dan", 0, 3, "not_finished"),
    _result("ube.", 0, 6, "not_finished"),
    _result("", 0, 7, "eos_token"),
)
_VECTORS = Reply({"model_id": MODEL, "results": [{"embedding": [0.1]}], "input_token_count": 5})
_RANKED = Reply({"model_id": MODEL, "results": [{"index": 0, "score": 0.4}], "input_token_count": 5})
_REFUSED = Reply(
    {"errors": [{"code": "invalid_request_entity", "message": "no"}], "trace": "1", "status_code": 400}, status=400
)


def _token():
    parts = ({"alg": "none"}, {"exp": 4_000_000_000}, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def _transports(url):
    """Transports below the wire, which lead to `url`; the token and the project are given right here."""
    local = httpx.URL(url)

    def led(request):
        request.url = request.url.copy_with(scheme=local.scheme, host=local.host, port=local.port)
        return request

    def answered(request):
        if request.url.path.startswith("/ml/"):
            return None
        project = {"entity": {"storage": {"type": "bmcos_object_storage"}, "compute": []}}
        return httpx.Response(200, json={"access_token": _token(), "expires_in": 3600} | project, request=request)

    class Sync(httpx.HTTPTransport):
        def handle_request(self, request):
            return answered(request) or super().handle_request(led(request))

    class Async(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            return answered(request) or await super().handle_async_request(led(request))

    return Sync(), Async()


def _api(url):
    sync, asynchronous = _transports(url)
    return ibm_watsonx_ai.APIClient(
        ibm_watsonx_ai.Credentials(url="https://us-south.ml.cloud.ibm.com", api_key="test"),
        project_id=PROJECT,
        httpx_client=httpx.Client(transport=sync),
        async_httpx_client=httpx.AsyncClient(transport=asynchronous),
    )


def _model(url):
    return found.ModelInference(model_id=MODEL, api_client=_api(url), validate=False, max_retries=0)


def _case(name, reply, asked, *, client=_model, site="inference.model_inference:ModelInference", **more):
    return Case(
        name=name,
        site=f"ibm_watsonx_ai.foundation_models.{site}.{name}",
        client=client,
        run=lambda made: getattr(made, name)(*asked),
        reply=reply,
        provider="ibm.watsonx.ai",
        model=MODEL,
        streams="stream" in name,
        asynchronous=name.startswith("a"),
        refusal=_REFUSED,
        bounded=False,  # nobody lists its prices
        **({"usage": COUNTED, "operation": "chat"} | more),
    )


_CHATTED = ([{"role": "user", "content": "One river."}], {"max_tokens": 50})
_ASKED = ("One river.", {"max_new_tokens": 50})
_TEXTS = {"operation": "text_completion"}
_INPUT = {"usage": {"tokens_in": 5, "tokens_out": 0}}
_EMBEDDING = _INPUT | {
    "client": lambda url: found.Embeddings(model_id=MODEL, api_client=_api(url)),
    "site": "embeddings.embeddings:Embeddings",
    "operation": "embeddings",
}
_RANKING = _INPUT | {
    "client": lambda url: found.Rerank(model_id=MODEL, api_client=_api(url)),
    "site": "rerank.rerank:Rerank",
    "operation": "rerank",
}
CASES = [
    _case("chat", _CHAT, _CHATTED),
    _case("achat", _CHAT, _CHATTED),
    _case("chat_stream", _CHAT_STREAM, _CHATTED),
    _case("achat_stream", _CHAT_STREAM, _CHATTED),
    _case("generate", _TEXT, _ASKED, **_TEXTS),
    _case("agenerate", _TEXT, _ASKED, **_TEXTS),
    _case("generate_text", _TEXT, _ASKED, **_TEXTS),
    _case("generate_text_stream", _TEXT_STREAM, _ASKED, **_TEXTS),
    _case("agenerate_stream", _TEXT_STREAM, _ASKED, **_TEXTS),
    _case("generate", _VECTORS, (["One river."],), **_EMBEDDING),
    _case("agenerate", _VECTORS, (["One river."],), **_EMBEDDING),
    _case("generate", _RANKED, ("One river.", ["Danube."]), **_RANKING),
]
