"""Replicate's predictions (replicate.com/docs, reference of the HTTP API: predictions.create and predictions.get)."""

import json
import re

import pytest

from tollspan.instrumentation._readers._replicate import REPLICATE_FETCHES, REPLICATE_PREDICTIONS

DONE = {
    "id": "gm3qorzdhgbfurvjtvhg6dckhu",
    "model": "meta/meta-llama-3-8b-instruct",
    "input": {"prompt": "One river."},
    "output": ["Danube."],
    "error": None,
    "status": "succeeded",
    "created_at": "2026-01-01T00:00:00.500000000Z",
    "metrics": {"input_token_count": 18, "output_token_count": 7, "predict_time": 0.4},
}


def _read(**changes):
    return REPLICATE_PREDICTIONS.response(json.dumps(DONE | changes).encode())


def test_a_prediction_that_is_done_tells_its_tokens():
    """Tokens, model and id of an answer; its time is the provider's."""
    facts = _read()
    assert facts.usage == {"tokens_in": 18, "tokens_out": 7}
    assert (facts.model, facts.response_id) == (DONE["model"], DONE["id"])
    assert facts.created == 1767225600.5


@pytest.mark.parametrize("status", ["starting", "processing"])
def test_what_is_not_over_is_unknown(status):
    """What a prediction has used so far is not what it will have used."""
    assert _read(status=status).usage is None


@pytest.mark.parametrize("metrics", [None, {}, {"predict_time": 3.2}, {"input_token_count": 3}, [1]])
def test_time_of_a_machine_is_no_usage(metrics):
    """Without both counts of tokens nothing is known, and it is not 0."""
    assert _read(metrics=metrics).usage is None


def test_pieces_are_counted():
    """Images, and seconds of video, are counted where they are told."""
    assert _read(metrics={"image_count": 2, "predict_time": 3.0}).usage == {"images": 2}
    assert _read(metrics={"video_output_duration_seconds": 5}).usage == {"video_seconds": 5}


def test_errors():
    """A prediction that failed has its error, and so has a request that was refused."""
    assert _read(status="failed", error="out of memory").error_message == "out of memory"
    refused = REPLICATE_PREDICTIONS.response(b'{"title":"no","detail":"no such version","status":422}')
    assert (refused.error_message, refused.usage) == ("no such version", None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"created_at":"soon"}', b'{"created_at":5,"status":[]}', b"3"])
def test_odd_answers_raise_nothing(body):
    """An answer of any shape has facts, without usage."""
    facts = REPLICATE_PREDICTIONS.response(body)
    assert (facts.usage, facts.created) == (None, None)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/meta/llama/predictions", "meta/llama"),
        ("/v1/deployments/we/ours/predictions", "we/ours"),
        ("/v1/predictions", None),
        ("", None),
    ],
)
def test_the_path_names_the_model(path, model):
    """A model or a deployment stands in the path; a version, in the body."""
    assert REPLICATE_PREDICTIONS.request({"input": {"prompt": "x"}}, path).model == model
    assert REPLICATE_PREDICTIONS.request({"version": "abc", "input": {}}, "/v1/predictions").model == "abc"


def test_a_poll_is_a_fetch():
    """A prediction is fetched by its id; a list of them, and the stop of one, are not."""
    (fetch,) = REPLICATE_FETCHES
    assert re.fullmatch(fetch.path, "/v1/predictions/abc")
    assert not re.fullmatch(fetch.path, "/v1/predictions")
    assert not re.fullmatch(fetch.path, "/v1/predictions/abc/cancel")
    assert [facts.usage for facts in fetch.read(json.dumps(DONE).encode())] == [{"tokens_in": 18, "tokens_out": 7}]


def test_the_maximum_of_the_model_is_known():
    """The inputs of language models have one of a few names for their maximum."""
    facts = REPLICATE_PREDICTIONS.request({"input": {"prompt": "x" * 500, "max_tokens": 64}})
    assert facts.max_output_tokens == 64
    assert 500 < facts.input_tokens_bound < 700
