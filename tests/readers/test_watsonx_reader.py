"""watsonx.ai (cloud.ibm.com/apidocs/watsonx-ai: "Text generation", "Text chat", "Embeddings", "Rerank")."""

import json

import pytest

from tollspan.instrumentation._readers import ResponseFacts
from tollspan.instrumentation._readers._watsonx import WATSONX, WATSONX_CHAT, WATSONX_EMBEDDINGS, WATSONX_RERANK
from tollspan.instrumentation._readers._watsonx import WATSONX_TEXT as TEXT

MODEL = "ibm/granite-3-8b-instruct"


def _event(text, tokens_in, tokens_out, reason):
    counts = {"input_token_count": tokens_in, "generated_token_count": tokens_out}
    body = {"model_id": MODEL, "results": [{"generated_text": text, "stop_reason": reason} | counts]}
    return b"id: 1\nevent: message\ndata: %s\n\n" % json.dumps(body).encode()


STREAM = (
    _event("", 18, 0, "not_finished")
    + _event("Dan", 0, 3, "not_finished")
    + _event("ube.", 0, 6, "not_finished")
    + _event("", 0, 7, "eos_token")
)


def test_an_answer_counts_all_its_results():
    """Input and output of all results are added up."""
    result = {"generated_text": "x", "input_token_count": 9, "generated_token_count": 2, "stop_reason": "max_tokens"}
    facts = TEXT.response(json.dumps({"model_id": MODEL, "results": [result, result]}).encode())
    assert facts.usage == {"tokens_in": 18, "tokens_out": 4}
    assert (facts.model, facts.finish_reasons) == (MODEL, ("max_tokens", "max_tokens"))


def test_a_stream_counts_its_output_so_far():
    """The first event tells the input, the last one the output; they are not added up over the events."""
    facts = TEXT.stream(STREAM)
    assert (facts.usage, facts.complete) == ({"tokens_in": 18, "tokens_out": 7}, True)
    assert facts.finish_reasons == ("eos_token",)


def test_a_cut_stream_shows_bytes_and_no_usage():
    """Without its last event the output is not known; what was generated is seen."""
    facts = TEXT.stream(STREAM[: STREAM.rfind(b"id: 1")])
    assert (facts.usage, facts.complete, facts.visible_output_bytes) == (None, False, 7)
    for end in range(len(STREAM)):
        assert isinstance(TEXT.stream(STREAM[:end]), ResponseFacts)


def test_errors_are_listed():
    """The first of `errors` is the error of every endpoint."""
    body = b'{"errors":[{"code":"invalid_input_argument","message":"no"}],"status_code":400}'
    for reader in WATSONX:
        facts = reader.response(body)
        assert (facts.error_type, facts.error_message, facts.usage) == ("invalid_input_argument", "no", None)


def test_chat_is_openais_with_another_name_of_the_model():
    """Usage is OpenAI's; the model stands under `model_id`, and the path tells of a stream."""
    facts = WATSONX_CHAT.request({"model_id": MODEL, "messages": [], "max_tokens": 9}, "/ml/v1/text/chat_stream")
    assert (facts.model, facts.max_output_tokens, facts.stream) == (MODEL, 9, True)
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    answer = WATSONX_CHAT.response(json.dumps({"model_id": MODEL, "choices": [], "usage": usage}).encode())
    assert (answer.model, answer.usage) == (MODEL, {"tokens_in": 3, "tokens_out": 2})


@pytest.mark.parametrize("reader", [WATSONX_EMBEDDINGS, WATSONX_RERANK], ids=lambda reader: reader.name)
def test_input_only(reader):
    """Vectors and rankings count their input."""
    facts = reader.response(json.dumps({"model_id": MODEL, "results": [], "input_token_count": 5}).encode())
    assert facts.usage == {"tokens_in": 5, "tokens_out": 0}
    assert reader.response(b'{"results":[]}').usage is None


def test_a_deployment_has_a_prompt_of_its_own():
    """What a deployment puts around the input is not ours to see."""
    path = "/ml/v1/deployments/abc/text/generation"
    assert TEXT.request({"input": "x"}, path).unbounded == "prompt of a deployment"
    assert TEXT.request({"input": "x"}, "/ml/v1/text/generation").unbounded is None


def test_the_query_is_read_with_each_input():
    """What bounds a reranking grows with the query times the inputs."""
    body = {"query": "x" * 100, "inputs": [{"text": "y"}] * 20, "model_id": MODEL}
    assert WATSONX_RERANK.request(body).input_tokens_bound >= 2_020


def test_the_maximum_and_its_limit():
    """The maximum stands under `parameters`, and a limit goes there, never above what the caller asks."""
    body = {"input": "x", "model_id": MODEL, "parameters": {"max_new_tokens": 50, "top_k": 1}}
    assert TEXT.request(body).max_output_tokens == 50
    assert TEXT.with_output_limit(body, 20) == {"parameters": {"max_new_tokens": 20, "top_k": 1}}
    assert TEXT.with_output_limit(body, 90) == {"parameters": {"max_new_tokens": 50, "top_k": 1}}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"results":3}', b'{"results":[3]}', b'{"errors":[3]}', b"null"])
def test_odd_answers_raise_nothing(body):
    """An answer of any shape has facts, without usage."""
    for reader in WATSONX:
        assert reader.response(body).usage is None
        assert reader.stream(body).usage is None
