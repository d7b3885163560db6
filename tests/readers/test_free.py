"""Moderation and counting tokens. Wire format: the API references of OpenAI ("Moderations") and of Anthropic."""

import json

import pytest

from tollspan.instrumentation._readers import reader_for_path
from tollspan.instrumentation._readers._free import ANTHROPIC_COUNT, OPENAI_COUNT, OPENAI_MODERATION

PATHS = {
    "/v1/moderations": OPENAI_MODERATION,
    "/v1/responses/input_tokens": OPENAI_COUNT,
    "/v1/messages/count_tokens": ANTHROPIC_COUNT,
    "/v1/messages/count_tokens?beta=true": ANTHROPIC_COUNT,
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_tells_its_reader(path):
    """What costs nothing has endpoints of its own."""
    assert reader_for_path(path) is PATHS[path]


@pytest.mark.parametrize("reader", set(PATHS.values()), ids=lambda reader: reader.name)
def test_the_request_is_free(reader):
    """Nothing of it is billed, so nothing has to be bounded, and nothing is limited."""
    facts = reader.request({"model": "m", "input": "x" * 10_000, "messages": [{"role": "user", "content": "x"}]})
    assert (facts.free, facts.model, facts.input_tokens_bound, facts.unbounded) == (True, "m", 0, None)
    assert (facts.max_output_tokens, facts.stream, facts.limitable) == (0, False, False)


@pytest.mark.parametrize(
    ("reader", "answer"),
    [
        (OPENAI_MODERATION, {"id": "modr-1", "model": "omni-moderation-2024-09-26", "results": []}),
        (OPENAI_COUNT, {"object": "response.input_tokens", "input_tokens": 11}),
        (ANTHROPIC_COUNT, {"input_tokens": 11}),
    ],
)
def test_an_answer_has_no_usage(reader, answer):
    """Tokens that were only counted are not used."""
    facts = reader.response(json.dumps(answer).encode())
    assert (facts.usage, facts.error_type, facts.model) == (None, None, answer.get("model"))


def test_a_host_that_tells_usage_is_believed():
    """Mistral's moderation has the same path, and is billed by the tokens that its answer tells."""
    answer = {"id": "1", "model": "mistral-moderation", "results": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    assert OPENAI_MODERATION.response(json.dumps(answer).encode()).usage == {"tokens_in": 9, "tokens_out": 0}


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"usage": 3}', b'{"model": 7, "id": []}', b"\xff\xfe"])
def test_odd_answers_are_harmless(body):
    """Nothing raises, and no usage is made up."""
    for reader in set(PATHS.values()):
        assert reader.response(body).usage is None
        assert reader.stream(body).usage is None


def test_an_error_is_read():
    """Type and message of the provider's error."""
    facts = ANTHROPIC_COUNT.response(b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}')
    assert (facts.error_type, facts.error_message) == ("overloaded_error", "busy")
