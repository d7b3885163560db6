"""Cohere's readers. Wire format: docs.cohere.com/reference, versions 1 and 2."""

import json

import pytest

from tollspan.instrumentation._readers import reader_for_path
from tollspan.instrumentation._readers._cohere import (
    COHERE_CHAT,
    COHERE_CLASSIFY,
    COHERE_EMBED,
    COHERE_GENERATE,
    COHERE_PARSE,
    COHERE_RERANK,
    TOKENS_RERANK,
)

BILLED = {"input_tokens": 7, "output_tokens": 9}
COUNTS = {"billed_units": BILLED, "tokens": {"input_tokens": 69, "output_tokens": 11}, "cached_tokens": 48}
USED = {"tokens_in": 7, "tokens_out": 9}
V1 = {"response_id": "r-1", "generation_id": "g-1", "text": "Danube.", "finish_reason": "COMPLETE", "meta": COUNTS}
V2 = {
    "id": "g-2", "finish_reason": "COMPLETE", "usage": COUNTS,
    "message": {"role": "assistant", "content": [{"type": "text", "text": "Danube."}]},
}  # fmt: skip
ASKED = {"model": "command-r-08-2024", "messages": [{"role": "user", "content": "One river."}]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}


def read(reader, body):
    return reader.response(json.dumps(body).encode())


def lines(*events):
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def events(*found):
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in found)


def v1_stream(**end):
    last = {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": V1}
    return (
        {"is_finished": False, "event_type": "stream-start", "generation_id": "g-1"},
        {"is_finished": False, "event_type": "text-generation", "text": "Dan"},
        {"is_finished": False, "event_type": "text-generation", "text": "ube."},
        last | end,
    )


def v2_stream(**delta):
    return (
        {"id": "g-2", "type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Dan"}}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "ube."}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COUNTS} | delta},
    )


STREAMS = {"version 1": (lines, v1_stream, "g-1"), "version 2": (events, v2_stream, "g-2")}
EACH_VERSION = pytest.mark.parametrize(("write", "made", "ident"), STREAMS.values(), ids=STREAMS)


@pytest.mark.parametrize(("answer", "ident"), [(V1, "g-1"), (V2, "g-2")], ids=["version 1", "version 2"])
def test_the_billed_units_are_the_usage(answer, ident):
    """What the model reads around them is not billed; what it had cached of that is no part of them."""
    facts = read(COHERE_CHAT, answer)
    assert (facts.usage, facts.response_id, facts.finish_reasons) == (USED, ident, ("COMPLETE",))
    assert (facts.model, facts.error_type) == (None, None)


@pytest.mark.parametrize("billed", [None, {}, {"search_units": None}, "7"])
def test_where_nothing_is_said_of_billing_the_tokens_count(billed):
    """As at other clouds, whose Cohere bills all tokens; then the cached ones are a part of them."""
    facts = read(COHERE_CHAT, V2 | {"usage": COUNTS | {"billed_units": billed}})
    assert facts.usage == {"tokens_in": 69, "tokens_out": 11, "tokens_cache_read": 48}


@pytest.mark.parametrize(
    "counts", [None, {}, [], {"billed_units": {"input_tokens": 7}}, {"tokens": {"output_tokens": 1}}]
)
def test_what_is_not_said_is_not_known(counts):
    """A generated text has input and output, or its usage is not known."""
    assert read(COHERE_CHAT, V2 | {"usage": counts}).usage is None


def test_counts_may_be_written_as_fractions():
    """The API's types are floating-point numbers."""
    facts = read(COHERE_CHAT, V2 | {"usage": {"billed_units": {"input_tokens": 7.0, "output_tokens": 9.0}}})
    assert facts.usage == USED


@EACH_VERSION
def test_the_last_event_of_a_stream_has_the_usage(write, made, ident):
    """Whether its lines stand alone or are those of server-sent events."""
    stream = write(*made())
    facts = COHERE_CHAT.stream(stream)
    assert (facts.usage, facts.response_id, facts.complete) == (USED, ident, True)
    assert facts.finish_reasons == ("COMPLETE",)
    assert COHERE_CHAT.is_complete(stream)
    assert COHERE_CHAT.stream(stream.replace(b"\n", b"\r\n")).usage == USED


@EACH_VERSION
def test_a_cut_stream_tells_how_much_was_seen(write, made, ident):
    """A torn event is left out."""
    stream = write(*made()[:3])
    facts = COHERE_CHAT.stream(stream + write(*made()[3:])[:40])
    assert (facts.usage, facts.complete, facts.response_id) == (None, False, ident)
    assert facts.visible_output_bytes == len("Danube.")
    assert not COHERE_CHAT.is_complete(stream)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "12345"}}},
        {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": {"function": {"name": "12345"}}}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "12345"}}}},
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"name": "12345"}},
    ],
    ids=["plan", "call", "thinking", "call of version 1"],
)
def test_all_that_is_generated_is_seen(event):
    """Plans, thoughts and calls of tools are output like text."""
    assert COHERE_CHAT.stream(lines(event, event)).visible_output_bytes >= 10


@EACH_VERSION
def test_what_is_said_ends_nothing(write, made, ident):
    """A text about ends is a text."""
    talk = json.dumps({"type": "message-end", "event_type": "stream-end"})
    said = {"type": "content-delta", "event_type": "text-generation", "text": talk}
    stream = write(*made()[:2], said)
    assert not COHERE_CHAT.is_complete(stream)
    assert not COHERE_CHAT.stream(stream).complete
    assert ident


def test_an_error_in_the_end_is_told():
    """Version 2 says what went wrong, and may count what it had generated."""
    facts = COHERE_CHAT.stream(events(*v2_stream(error="it failed", finish_reason="ERROR")))
    assert (facts.error_message, facts.usage, facts.finish_reasons) == ("it failed", USED, ("ERROR",))


@pytest.mark.parametrize("body", [{"message": "no such model"}, {"id": "e-1", "message": "no such model"}])
def test_an_error_is_read(body):
    """Newer ones have an id as well; a good answer's message is no text."""
    for facts in (read(COHERE_CHAT, body), COHERE_CHAT.stream(json.dumps(body).encode())):
        assert (facts.error_type, facts.error_message, facts.usage) == ("_OTHER", "no such model", None)


def test_generations_have_ends_of_their_own():
    """The older endpoint gives several texts."""
    body = {
        "id": "g-3",
        "generations": [{"finish_reason": "COMPLETE"}, {"finish_reason": "MAX_TOKENS"}],
        "meta": COUNTS,
    }
    facts = read(COHERE_GENERATE, body)
    assert (facts.usage, facts.finish_reasons) == (USED, ("COMPLETE", "MAX_TOKENS"))


@pytest.mark.parametrize(
    ("billed", "usage"),
    [
        ({"input_tokens": 2, "image_tokens": 0}, {"tokens_in": 2, "tokens_out": 0}),
        ({"input_tokens": 2, "image_tokens": 334}, {"tokens_in": 336, "tokens_out": 0, "tokens_image_in": 334}),
        ({"image_tokens": 334}, {"tokens_in": 334, "tokens_out": 0, "tokens_image_in": 334}),
        ({"images": 1}, {"images": 1}),
    ],
)
def test_embeddings_have_input_only(billed, usage):
    """The tokens of images are counted beside those of text; older models bill images by the piece."""
    assert read(COHERE_EMBED, {"id": "e", "embeddings": {}, "meta": {"billed_units": billed}}).usage == usage


@pytest.mark.parametrize(
    ("reader", "billed", "usage"),
    [
        (COHERE_RERANK, {"search_units": 2}, {"rerank_searches": 2}),
        (COHERE_CLASSIFY, {"classifications": 3}, {"classifications": 3}),
        (COHERE_PARSE, {"pages": 1}, {"document_pages": 1}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_billed_by_the_piece_is_counted_in_pieces(reader, billed, usage):
    """Its answer tells how many; its request does not."""
    assert read(reader, {"id": "k", "meta": {"billed_units": billed}}).usage == usage
    facts = reader.request({"model": "m", "documents": ["one"], "inputs": ["one"]})
    assert facts.unbounded.startswith("billed by the ")
    assert (facts.max_output_tokens, facts.priced) == (0, False)


def test_others_bill_the_same_endpoint_by_tokens():
    """The query is read again with each document."""
    assert read(COHERE_RERANK, {"id": "k", "usage": {"total_tokens": 40}}).usage == {"tokens_in": 40, "tokens_out": 0}
    facts = TOKENS_RERANK.request({"model": "m", "query": "q" * 1_000, "documents": ["d"] * 50})
    assert facts.input_tokens_bound >= 50 * 1_000
    assert (facts.unbounded, facts.max_output_tokens, facts.priced) == (None, 0, True)


@pytest.mark.parametrize(
    ("path", "reader"),
    [
        ("/v1/chat", COHERE_CHAT), ("/v2/chat", COHERE_CHAT), ("/v1/generate", COHERE_GENERATE),
        ("/v1/summarize", COHERE_GENERATE), ("/v1/embed", COHERE_EMBED), ("/v2/embed", COHERE_EMBED),
        ("/v1/rerank", COHERE_RERANK), ("/v2/rerank", COHERE_RERANK), ("/v1/classify", COHERE_CLASSIFY),
        ("/v2/parse", COHERE_PARSE),
    ],
)  # fmt: skip
def test_each_endpoint_has_its_reader(path, reader):
    """In both versions."""
    assert reader_for_path(path) is reader


def test_the_attributes_of_a_request():
    """Cohere's short names are those of the conventions at length."""
    more = {"max_tokens": 90, "temperature": 0.5, "p": 0.9, "k": 3, "seed": 1, "stop_sequences": ["x"], "stream": True}
    facts = COHERE_CHAT.request(ASKED | more)
    assert (facts.model, facts.stream, facts.max_output_tokens) == ("command-r-08-2024", True, 90)
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 90,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 3.0,
        "gen_ai.request.seed": 1,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.request.stream": True,
    }


def test_each_generation_may_be_as_long():
    """`num_generations` asks for several outputs."""
    assert COHERE_GENERATE.request({"model": "m", "prompt": "x", "num_generations": 3}).choices == 3


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"connectors": [{"id": "web-search"}]}, "hosted connectors"),
        ({"conversation_id": "c-1"}, "conversation held by the server"),
        ({}, None),
    ],
)
def test_what_the_server_adds_has_no_bound(more, reason):
    """Version 1 searches by itself, and may keep the conversation."""
    assert COHERE_CHAT.request({"model": "m", "message": "x"} | more).unbounded == reason


def test_the_input_is_bounded_by_its_bytes():
    """Messages, documents and tools all count; an image by what it is scaled to."""
    plain = COHERE_CHAT.request(ASKED).input_tokens_bound
    assert plain >= len("One river.")
    assert COHERE_CHAT.request(ASKED | {"documents": ["d" * 500] * 3}).input_tokens_bound >= plain + 1_500
    shown = ASKED | {"messages": [{"role": "user", "content": [IMAGE] * 2}]}
    assert 2 * 3_328 <= COHERE_CHAT.request(shown).input_tokens_bound < 10_000


@pytest.mark.parametrize(
    "asked",
    [{"images": ["data:image/png;base64," + "A" * 900_000]}, {"inputs": [{"content": [IMAGE]}]}],
    ids=["images", "inputs"],
)
def test_an_image_to_embed_counts_by_what_it_is_scaled_to(asked):
    """Its tokens, or where it is billed by the piece its price, are none of text."""
    facts = COHERE_EMBED.request(asked | {"model": "embed-v4.0"})
    assert 15_100 <= facts.input_tokens_bound < 30_000
    assert (facts.unbounded, facts.find_units()) == (None, ("tokens_image_in",))
    by_the_piece = COHERE_EMBED.request(asked | {"model": "embed-english-v3.0"})
    assert by_the_piece.unbounded == "images are billed by the piece"
    assert COHERE_EMBED.request({"model": "embed-v4.0", "texts": ["x"]}).find_units() == ()


@pytest.mark.parametrize(("asked", "limit"), [({}, 50), ({"max_tokens": 20}, 20), ({"max_tokens": 90}, 50)])
def test_a_limit_only_ever_lowers_the_callers_own(asked, limit):
    """The largest output that a budget has left is no wish of the caller's."""
    assert COHERE_CHAT.with_output_limit(ASKED | asked, 50) == {"max_tokens": limit}
