"""voyageai, against the wire format of Voyage's API (docs.voyageai.com, API reference)."""

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply

voyageai = pytest.importorskip("voyageai", reason="voyageai is not installed")

_VECTOR = {"object": "embedding", "embedding": [0.1, 0.2], "index": 0}
_PLAIN = Reply({"object": "list", "data": [_VECTOR], "model": "voyage-3-large", "usage": {"total_tokens": 6}})
_MULTIMODAL = Reply(
    {
        "object": "list",
        "data": [_VECTOR],
        "model": "voyage-multimodal-3",
        "usage": {"text_tokens": 4, "image_pixels": 1120, "video_pixels": 0, "total_tokens": 6},
    }
)
_CONTEXTUALIZED = Reply(
    {
        "object": "list",
        "data": [{"object": "list", "data": [_VECTOR], "index": 0}],
        "model": "voyage-context-3",
        "usage": {"total_tokens": 6},
    }
)
_RANKED = Reply(
    {
        "object": "list",
        "data": [{"relevance_score": 0.4, "index": 0}],
        "model": "rerank-2",
        "usage": {"total_tokens": 6},
    }
)


def _client(url, *, asynchronous):
    made = voyageai.AsyncClient if asynchronous else voyageai.Client
    return made(api_key="pa-test", base_url=f"{url}/v1", max_retries=0)


def _shown(value):
    return {key: kept for key, kept in vars(value).items() if not key.startswith("_")}


def _case(method, model, reply, asked, *, asynchronous, operation="embeddings"):
    return Case(
        name=method,
        site=f"voyageai.client{'_async' if asynchronous else ''}:{'Async' if asynchronous else ''}Client.{method}",
        client=lambda url: _client(url, asynchronous=asynchronous),
        run=lambda client: getattr(client, method)(**asked, model=model),
        reply=reply,
        usage={"tokens_in": 6, "tokens_out": 0},
        provider="voyageai",
        model=model,
        operation=operation,
        asynchronous=asynchronous,
        refusal=Reply({"detail": "no"}, status=400),
        shown=_shown,
        bounded=model == "voyage-3-large",  # nobody lists the prices of the others
    )


_RANK = {"query": "One river.", "documents": ["Danube."]}
CASES = [
    case
    for asynchronous in (False, True)
    for case in (
        _case("embed", "voyage-3-large", _PLAIN, {"texts": ["One river."]}, asynchronous=asynchronous),
        _case(
            "multimodal_embed",
            "voyage-multimodal-3",
            _MULTIMODAL,
            {"inputs": [["One river."]]},
            asynchronous=asynchronous,
        ),
        _case(
            "contextualized_embed",
            "voyage-context-3",
            _CONTEXTUALIZED,
            {"inputs": [["One river.", "Another."]]},
            asynchronous=asynchronous,
        ),
        _case("rerank", "rerank-2", _RANKED, _RANK, asynchronous=asynchronous, operation="rerank"),
    )
]
