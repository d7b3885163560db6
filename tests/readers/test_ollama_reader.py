"""Ollama's readers. Wire format: github.com/ollama/ollama, docs/api.md."""

import base64
import json

import pytest

from tollspan.instrumentation._readers import reader_for_path
from tollspan.instrumentation._readers._ollama import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_GENERATE

USED = {"tokens_in": 26, "tokens_out": 290}
SPENT = {
    "done": True, "done_reason": "stop", "total_duration": 5, "load_duration": 1, "prompt_eval_count": 26,
    "prompt_eval_duration": 2, "eval_count": 290, "eval_duration": 2,
}  # fmt: skip
ASKED = {"model": "llama3.2", "messages": [{"role": "user", "content": "One river."}]}


def said(text, **more):
    return {
        "model": "llama3.2",
        "created_at": "2026-11-01T10:00:00Z",
        "message": {"content": text},
        "done": False,
    } | more


def lines(*events):
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def png(width, height):
    head = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR"
    return base64.b64encode(head + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes(40)).decode()


@pytest.mark.parametrize("reader", [OLLAMA_CHAT, OLLAMA_GENERATE], ids=lambda reader: reader.name)
def test_an_answer_tells_its_usage(reader):
    """The counts of both directions stand beside the answer."""
    facts = reader.response(json.dumps(said("Danube.") | SPENT).encode())
    assert (facts.usage, facts.model, facts.finish_reasons) == (USED, "llama3.2", ("stop",))
    assert facts.complete


@pytest.mark.parametrize("space", [b"", b" "], ids=["tight", "spaced"])
def test_the_last_line_of_a_stream_tells_its_usage(space):
    """All lines before are text; how the server spaces its JSON does not matter."""
    stream = lines(said("Dan"), said("ube."), said("") | SPENT).replace(b": ", b":" + space)
    facts = OLLAMA_CHAT.stream(stream)
    assert (facts.usage, facts.model, facts.complete, facts.finish_reasons) == (USED, "llama3.2", True, ("stop",))
    assert OLLAMA_CHAT.is_complete(stream[-400:])


def test_a_stream_of_one_line_is_a_stream():
    """A server that has all at once sends one line, which is the last one too."""
    assert OLLAMA_CHAT.stream(lines(said("Danube.") | SPENT)).usage == USED


def test_a_prompt_that_the_server_remembers_has_no_count():
    """Then the input is not known, and not 0."""
    spent = {key: value for key, value in SPENT.items() if key != "prompt_eval_count"}
    assert OLLAMA_CHAT.response(json.dumps(said("x") | spent).encode()).usage == {"tokens_out": 290}


@pytest.mark.parametrize("wrong", [None, "26", -1, 2.5, True, [26]])
def test_what_is_no_count_is_no_usage(wrong):
    """No usage is made up of it."""
    assert OLLAMA_CHAT.response(json.dumps(said("x") | SPENT | {"eval_count": wrong}).encode()).usage is None


def test_a_cut_stream_tells_how_much_was_seen():
    """Text, thinking and calls of tools, each in UTF-8; a torn line is left out."""
    call = {"function": {"name": "f", "arguments": {"a": "b"}}}
    stream = lines(said("h\u00e9"), said("", message={"thinking": "mmm"}), said("", message={"tool_calls": [call]}))
    facts = OLLAMA_CHAT.stream(stream + b'{"model":"llama3.2","message":{"con')
    assert (facts.usage, facts.complete) == (None, False)
    assert facts.visible_output_bytes >= len("h\u00e9mmmfab".encode())
    assert OLLAMA_CHAT.stream(lines(said("h\u00e9"))).visible_output_bytes == 3
    assert not OLLAMA_CHAT.is_complete(stream)


def test_an_error_ends_a_stream():
    """It has no type, and nothing comes after it."""
    stream = lines(said("Dan"), {"error": "out of memory"})
    facts = OLLAMA_CHAT.stream(stream)
    assert (facts.usage, facts.error_type, facts.error_message) == (None, "_OTHER", "out of memory")
    assert OLLAMA_CHAT.is_complete(stream)


def test_what_is_said_ends_nothing():
    """A text about `done` and errors is a text."""
    stream = lines(said('"done": true, "error"'), said("x"))
    assert not OLLAMA_CHAT.is_complete(stream)
    assert not OLLAMA_CHAT.stream(stream).complete


def test_an_error_is_read():
    """The server's words, and no usage."""
    facts = OLLAMA_CHAT.response(b'{"error":"model \'x\' not found"}')
    assert (facts.usage, facts.error_message) == (None, "model 'x' not found")


@pytest.mark.parametrize(
    ("path", "reader"),
    [("/api/chat", OLLAMA_CHAT), ("/api/generate", OLLAMA_GENERATE), ("/api/embed", OLLAMA_EMBED),
     ("/api/embeddings", OLLAMA_EMBED)],
)  # fmt: skip
def test_each_endpoint_has_its_reader(path, reader):
    """Also behind a prefix, as of a gateway; the cloud speaks the same."""
    assert reader_for_path(path) is reader
    assert reader_for_path(f"/gateway{path}") is reader


def test_it_streams_unless_told_not_to():
    """That is the API's default."""
    assert OLLAMA_CHAT.request(ASKED).stream
    assert not OLLAMA_CHAT.request(ASKED | {"stream": False}).stream
    assert not OLLAMA_EMBED.request({"model": "m", "input": "x"}).stream


def test_the_attributes_of_a_request():
    """Options have the names of the conventions."""
    options = {"num_predict": 100, "temperature": 0, "top_p": 0.5, "top_k": 40, "seed": 7, "stop": ["x"], "num_ctx": 9}
    facts = OLLAMA_CHAT.request(ASKED | {"options": options, "stream": False})
    assert facts.max_output_tokens == 100
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ["x"],
    }


@pytest.mark.parametrize("options", [None, [], {"num_predict": -1}, {"num_predict": "9"}])
def test_without_a_maximum_there_is_none(options):
    """A negative one is Ollama's word for no limit."""
    assert OLLAMA_CHAT.request(ASKED | {"options": options}).max_output_tokens is None


@pytest.mark.parametrize(
    ("options", "limit"), [(None, 50), ({}, 50), ({"num_predict": 20}, 20), ({"num_predict": -1}, 50)]
)
def test_a_limit_only_ever_lowers_the_callers_own(options, limit):
    """The other options stay."""
    asked = ASKED if options is None else ASKED | {"options": options | {"seed": 1}}
    changed = OLLAMA_CHAT.with_output_limit(asked, 50)["options"]
    assert changed == {"num_predict": limit} | ({} if options is None else {"seed": 1})


def test_the_input_is_bounded_by_its_bytes():
    """Messages, tools and a remembered context all count."""
    assert OLLAMA_CHAT.request(ASKED).input_tokens_bound >= len("One river.")
    many = OLLAMA_CHAT.request(ASKED | {"messages": ASKED["messages"] * 50})
    assert many.input_tokens_bound >= 50 * len("One river.")
    assert OLLAMA_GENERATE.request({"model": "m", "prompt": "x", "context": [1] * 900}).input_tokens_bound >= 900
    assert OLLAMA_CHAT.request(ASKED).unbounded is None


def test_an_image_counts_by_its_size_and_not_by_its_bytes():
    """It is scaled to a size of the model's own, however many bytes it has."""
    plain = OLLAMA_CHAT.request(ASKED).input_tokens_bound
    bytes_of_noise = base64.b64encode(bytes(900_000)).decode()
    small = [{"role": "user", "content": "One river.", "images": [bytes_of_noise]}]
    assert 6_404 <= OLLAMA_CHAT.request(ASKED | {"messages": small}).input_tokens_bound - plain < 20_000
    large = [{"role": "user", "content": "One river.", "images": [png(4_000, 4_000)] * 2}]
    assert OLLAMA_CHAT.request(ASKED | {"messages": large}).input_tokens_bound >= 2 * 4_000 * 4_000 // 28**2
    assert OLLAMA_GENERATE.request({"model": "m", "prompt": "x", "images": [png(9, 9)]}).input_tokens_bound >= 6_404


def test_embeddings_have_input_only():
    """Output is 0, not unknown; the older endpoint tells nothing."""
    told = json.dumps({"model": "m", "embeddings": [[0.5]], "prompt_eval_count": 8}).encode()
    assert OLLAMA_EMBED.response(told).usage == {"tokens_in": 8, "tokens_out": 0}
    assert OLLAMA_EMBED.response(b'{"embedding":[0.5]}').usage is None
    facts = OLLAMA_EMBED.request({"model": "m", "input": ["abc", "de"], "dimensions": 64})
    assert (facts.max_output_tokens, facts.limitable) == (0, False)
    assert facts.attributes == {"gen_ai.embeddings.dimension.count": 64}
    assert facts.input_tokens_bound >= 5
