"""OpenAI's legacy completions and embeddings. Wire format: OpenAI's API reference, "Completions" and "Embeddings"."""

import json

import pytest

from tollspan.instrumentation._readers import OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
ANSWER = {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": [], "usage": USAGE}


def test_a_completion_has_the_usage_of_a_chat():
    """Prompt and completion tokens are input and output."""
    assert OPENAI_COMPLETIONS.response(json.dumps(ANSWER).encode()).usage == {"tokens_in": 5, "tokens_out": 7}


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4),
        ({"prompt": "a", "n": 2, "best_of": 5}, 5),
    ],
)
def test_each_prompt_has_its_own_outputs(body, outputs):
    """The maximum applies to every output of every prompt, and `best_of` generates more than it shows."""
    assert OPENAI_COMPLETIONS.request(body).choices == outputs


def test_without_a_maximum_the_default_of_the_api_holds():
    """A request that names no maximum gets at most 16 tokens for each output."""
    assert OPENAI_COMPLETIONS.request({"prompt": "a"}).max_output_tokens == 16
    assert OPENAI_COMPLETIONS.request({"prompt": "a", "max_tokens": 400}).max_output_tokens == 400


def test_the_text_of_a_cut_stream_is_measured():
    """Where usage never came, the bytes of the text seen so far are known."""
    event = {"id": "cmpl-1", "model": "m", "choices": [{"index": 0, "text": "h\u00e9llo"}]}
    facts = OPENAI_COMPLETIONS.stream(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert (facts.usage, facts.complete, facts.visible_output_bytes) == (None, False, 6)


@pytest.mark.parametrize(
    ("usage", "tokens"), [({"prompt_tokens": 8, "total_tokens": 8}, 8), ({"total_tokens": 6}, 6), ({}, None)]
)
def test_embeddings_have_input_only(usage, tokens):
    """Output is 0, not unknown; a usage with nothing but a total is all input."""
    facts = OPENAI_EMBEDDINGS.response(json.dumps({"model": "m", "data": [], "usage": usage}).encode())
    assert facts.usage == (None if tokens is None else {"tokens_in": tokens, "tokens_out": 0})


def test_an_embedding_request_is_bounded_by_its_input():
    """Texts count their bytes, token lists at least one for each token, and there is no output to bound."""
    facts = OPENAI_EMBEDDINGS.request({"model": "m", "input": ["abc", "de"], "dimensions": 256})
    assert facts.input_tokens_bound >= 5
    assert facts.max_output_tokens == 0
    assert facts.attributes == {"gen_ai.embeddings.dimension.count": 256}
    assert OPENAI_EMBEDDINGS.request({"input": [list(range(100))]}).input_tokens_bound >= 100
