"""Voyage's endpoints (docs.voyageai.com, API reference: multimodal and contextualized embeddings, rerankers)."""

import json

import pytest

from tollspan.instrumentation._readers._voyage import VOYAGE_EMBEDDINGS, VOYAGE_MORE_EMBEDDINGS, VOYAGE_RERANK

READERS = [VOYAGE_EMBEDDINGS, VOYAGE_MORE_EMBEDDINGS, VOYAGE_RERANK]
EACH = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.path_suffixes[:1] or "plain")
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
)


@EACH
def test_total_tokens_are_input(reader):
    """The total is the input, and there is no output."""
    answer = {"object": "list", "data": [], "model": "voyage-3", "usage": {"total_tokens": 10}}
    facts = reader.response(json.dumps(answer).encode())
    assert (facts.usage, facts.model) == ({"tokens_in": 10, "tokens_out": 0}, "voyage-3")


@EACH
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"usage":null}', b'{"usage":{"total_tokens":-1}}', b'{"usage":[3]}']
)
def test_what_tells_no_usage_is_unknown(reader, body):
    """What is cut, or has no total, is unknown and never 0."""
    assert reader.response(body).usage is None


@EACH
def test_an_error_is_its_detail(reader):
    """Voyage words its errors under `detail`."""
    assert reader.response(b'{"detail":"no such model"}').error_type == "_OTHER"


def test_the_query_is_billed_with_each_document():
    """What bounds a reranking grows with the query times the documents."""
    body = {"query": "x" * 100, "documents": ["y"] * 20, "model": "rerank-2"}
    assert VOYAGE_RERANK.request(body).input_tokens_bound >= 20 * 101


def test_an_image_is_bounded_by_its_pixels():
    """A small image counts little, one that is fetched no more than the largest that is taken; a video has no bound."""

    def bound(part):
        return VOYAGE_MORE_EMBEDDINGS.request({"inputs": [{"content": [part]}]})

    assert bound({"type": "image_base64", "image_base64": PIXEL}).input_tokens_bound < 400
    remote = bound({"type": "image_url", "image_url": "https://example.com/1.png"})
    assert 28_572 <= remote.input_tokens_bound < 30_000
    assert remote.unbounded is None
    assert bound({"type": "video_url", "video_url": "https://example.com/1.mp4"}).unbounded == "video input"


@EACH
@pytest.mark.parametrize("body", [{}, {"inputs": None}, {"documents": 3, "query": 4}, {"input": iter("a")}])
def test_odd_requests_raise_nothing(reader, body):
    """A body of any shape has facts."""
    facts = reader.request(body)
    assert facts.input_tokens_bound >= 0
    assert facts.max_output_tokens == 0
