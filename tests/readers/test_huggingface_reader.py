"""Tasks of Hugging Face (huggingface.co/docs, "Inference Providers"), text generation as of TGI's OpenAPI document."""

import json

import pytest

from tollspan.instrumentation._readers import ResponseFacts
from tollspan.instrumentation._readers._huggingface import HF_EMBEDDINGS, HF_GENERATION, HF_IMAGES, HF_TASKS, model_in

DETAILS = {"finish_reason": "length", "generated_tokens": 7, "seed": None, "prefill": [{"id": 1}] * 18, "tokens": []}


def _event(**event):
    return b"data:%s\n\n" % json.dumps(event).encode()


STREAM = (
    _event(index=1, token={"text": "Dan"}, generated_text=None, details=None)
    + _event(index=2, token={"text": "ube."}, generated_text="Danube.", details=DETAILS | {"input_length": 18})
)  # fmt: skip


def test_the_details_tell_the_usage():
    """Generated tokens stand in the details, those of the prompt are listed there where that was asked for."""
    facts = HF_GENERATION.response(json.dumps([{"generated_text": "Danube.", "details": DETAILS}]).encode())
    assert facts.usage == {"tokens_in": 18, "tokens_out": 7}
    assert facts.finish_reasons == ("length",)


def test_half_a_usage_is_none():
    """Where only the output is told, the usage is unknown: it would be taken for an input of 0."""
    body = json.dumps([{"generated_text": "x", "details": DETAILS | {"prefill": []}}]).encode()
    assert HF_GENERATION.response(body).usage is None


@pytest.mark.parametrize(
    ("headers", "usage"),
    [
        ({"x-prompt-tokens": "18", "x-generated-tokens": "7"}, {"tokens_in": 18, "tokens_out": 7}),
        ({"x-prompt-tokens": "18"}, None),
        ({"x-prompt-tokens": "many", "x-generated-tokens": "7"}, None),
    ],
)
def test_headers_tell_the_usage(headers, usage):
    """Both counts stand in headers; one of them alone tells nothing."""
    facts = HF_GENERATION.response(b'[{"generated_text":"Danube."}]')
    HF_GENERATION.take_headers(facts, headers)
    assert facts.usage == usage


def test_headers_of_a_cut_answer_tell_nothing():
    """An answer that is cut was not delivered, whatever its headers announce."""
    facts = HF_GENERATION.response(b'[{"generated_te')
    HF_GENERATION.take_headers(facts, {"x-prompt-tokens": "18", "x-generated-tokens": "7"})
    assert facts.usage is None


def test_a_stream_is_complete_with_its_text():
    """The last event has the whole text and the counts; before that, bytes are seen and no usage is known."""
    facts = HF_GENERATION.stream(STREAM)
    assert (facts.usage, facts.complete) == ({"tokens_in": 18, "tokens_out": 7}, True)
    cut = HF_GENERATION.stream(STREAM[: len(STREAM) // 3])
    assert (cut.usage, cut.complete) == (None, False)
    for end in range(len(STREAM)):
        assert isinstance(HF_GENERATION.stream(STREAM[:end]), ResponseFacts)


def test_an_error_has_its_type():
    """TGI has the text under `error` and the type beside it."""
    facts = HF_GENERATION.response(b'{"error":"too long","error_type":"validation"}')
    assert (facts.error_type, facts.error_message) == ("validation", "too long")
    assert HF_TASKS.response(b'{"error":["Model is loading"]}').error_message == "Model is loading"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/hf-inference/models/BAAI/bge/pipeline/feature-extraction", "BAAI/bge"),
        ("/models/gpt2", "gpt2"),
        ("/generate", None),
        ("/", None),
    ],
)
def test_the_path_names_the_model(path, model):
    """An address of a model names it; one of an endpoint does not."""
    assert model_in(path) == model


def test_the_maximum_and_its_limit():
    """The maximum stands under `parameters`, and a limit goes there, never above what the caller asks."""
    body = {"inputs": "x", "parameters": {"max_new_tokens": 50, "seed": 1}, "stream": True}
    facts = HF_GENERATION.request(body)
    assert (facts.max_output_tokens, facts.stream, facts.limitable) == (50, True, True)
    assert facts.attributes["gen_ai.request.max_tokens"] == 50
    assert HF_GENERATION.with_output_limit(body, 20) == {"parameters": {"max_new_tokens": 20, "seed": 1}}
    assert HF_GENERATION.with_output_limit(body, 90) == {"parameters": {"max_new_tokens": 50, "seed": 1}}
    assert HF_GENERATION.with_output_limit({}, 20) == {"parameters": {"max_new_tokens": 20}}


def test_the_shape_of_other_providers_is_read():
    """Behind some providers the task speaks OpenAI's completions."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    body = json.dumps({"id": "1", "choices": [{"index": 0, "text": "x"}], "usage": usage}).encode()
    assert HF_GENERATION.response(body).usage == {"tokens_in": 3, "tokens_out": 2}
    assert HF_GENERATION.request({"prompt": "x", "max_tokens": 4}).max_output_tokens == 4


def test_what_other_tasks_tell():
    """An image is one image; vectors and labels tell nothing, unless a provider counts their tokens."""
    assert HF_IMAGES.response(b"\x89PNG").usage == {"images": 1}
    assert HF_EMBEDDINGS.response(b"[[0.1]]").usage is None
    assert HF_EMBEDDINGS.response(b'{"usage":{"total_tokens":4}}').usage == {"tokens_in": 4, "tokens_out": 0}
    assert HF_TASKS.request({"inputs": "x"}).unbounded == "time of a machine"


@pytest.mark.parametrize("reader", [HF_GENERATION, HF_TASKS, HF_IMAGES], ids=lambda reader: reader.name)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"[3]", b"null", b'{"error":null}', b'{"details":3}', b'[{"details":[]}]']
)
def test_odd_answers_raise_nothing(reader, body):
    """An answer of any shape has facts."""
    assert isinstance(reader.response(body), ResponseFacts)
    assert isinstance(reader.stream(body), ResponseFacts)
