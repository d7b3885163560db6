"""Mistral's readers. Wire format: docs.mistral.ai/api, and the answers that its guides show."""

import json

import pytest

from tollspan.instrumentation._readers import reader_for_path
from tollspan.instrumentation._readers._mistral import MISTRAL_CHAT, MISTRAL_CONVERSATIONS, MISTRAL_FIM
from tollspan.instrumentation._readers._mistral._pieces import (
    MISTRAL_CLASSIFIERS,
    MISTRAL_MODERATIONS,
    MISTRAL_OCR,
    MISTRAL_SPEECH,
    MISTRAL_TRANSCRIPTIONS,
)

MODEL = "mistral-small-latest"
USAGE = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
USED = {"tokens_in": 20, "tokens_out": 7}
# What the search brought in is counted apart from the prompt, and is in the total.
SEARCHED = USAGE | {"total_tokens": 127, "connector_tokens": 100, "connectors": {"web_search": 2}}
FOUND = {"tokens_in": 120, "tokens_out": 7, "web_searches": 2}
SAID = {"object": "entry", "type": "message.output", "id": "msg_1", "model": MODEL, "content": "Danube."}
TALK = {"object": "conversation.response", "conversation_id": "conv_1", "outputs": [SAID], "usage": USAGE}
ASKED = {"model": MODEL, "inputs": "One river."}


def read(reader, body):
    return reader.response(json.dumps(body).encode())


def events(*found):
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in found)


def chat_stream(usage):
    chunk = {"id": "cmpl-1", "object": "chat.completion.chunk", "model": MODEL}
    chunks = (
        chunk | {"choices": [{"index": 0, "delta": {"content": "Danube."}, "finish_reason": None}]},
        chunk | {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}], "usage": usage},
    )
    return b"".join(b"data: %s\n\n" % json.dumps(c).encode() for c in chunks) + b"data: [DONE]\n\n"


def delta(text, kind="message.output.delta", **more):
    return {"type": kind, "output_index": 0, "id": "msg_1", "model": MODEL, "content": text} | more


STARTED = {"type": "conversation.response.started", "conversation_id": "conv_1"}
DONE = {"type": "conversation.response.done", "usage": SEARCHED}
FAILED = {"type": "conversation.response.error", "message": "it failed", "code": 3000}


@pytest.mark.parametrize(
    ("more", "usage"),
    [
        ({}, {}),
        ({"prompt_tokens_details": {"cached_tokens": 16}}, {"tokens_cache_read": 16}),
        ({"num_cached_tokens": 16}, {"tokens_cache_read": 16}),
        ({"prompt_audio_seconds": None}, {}),
        ({"prompt_audio_seconds": 20}, {"audio_seconds": 20}),
        ({"prompt_audio_seconds": 20, "num_cached_tokens": 16}, {"audio_seconds": 20, "tokens_cache_read": 16}),
        ({"total_tokens": 127, "connector_tokens": 100}, {"tokens_in": 120}),
        ({"connector_tokens": 5}, {}),
    ],
)
def test_a_chat_has_openais_usage_and_more(more, usage):
    """Seconds of sound stand beside the tokens; what a tool of the server's brings is input, if not counted in."""
    body = {"id": "cmpl-1", "model": MODEL, "choices": [], "usage": USAGE | more}
    assert read(MISTRAL_CHAT, body).usage == USED | usage
    facts = MISTRAL_CHAT.stream(chat_stream(USAGE | more))
    assert (facts.usage, facts.complete) == (USED | usage, True)


def test_a_stream_needs_no_asking_for_its_usage():
    """Mistral does not take `stream_options`."""
    assert MISTRAL_CHAT.with_usage_asked({"model": MODEL, "messages": [], "stream": True}) is None


@pytest.mark.parametrize("model", [MODEL, "ft:open-mistral-7b:1", "codestral-latest"])
def test_a_limit_goes_where_mistral_looks_for_it(model):
    """`max_tokens`, also for a fine-tuned model, whose name looks like one of OpenAI's."""
    assert MISTRAL_CHAT.with_output_limit({"model": model, "max_tokens": 90}, 50) == {"max_tokens": 50}
    assert MISTRAL_FIM.with_output_limit({"model": model, "max_tokens": 20}, 50) == {"max_tokens": 20}


def test_code_between_two_parts_has_no_default_maximum():
    """Unlike OpenAI's completions, whose path ends alike."""
    facts = MISTRAL_FIM.request({"model": "codestral-latest", "prompt": "def f(" * 20, "suffix": "return 1" * 20})
    assert (facts.max_output_tokens, facts.limitable, facts.unbounded) == (None, True, None)
    assert facts.input_tokens_bound >= 20 * len("def f(return 1")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"agent_id": "ag-1"}, "agent held by the server"),
        ({"tools": [{"type": "web_search"}]}, "hosted tool web_search"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": "UklG"}]}]},
            "sound is billed by the second",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, None),
    ],
)
def test_what_has_no_bound_in_a_chat(more, reason):
    """What the server holds, runs, or hears."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "One river."}]} | more
    assert MISTRAL_CHAT.request(asked).unbounded == reason


def test_sound_needs_a_price_of_its_own():
    """A model without one is not priced by its text."""
    heard = {"role": "user", "content": [{"type": "input_audio", "input_audio": "UklG"}]}
    assert MISTRAL_CHAT.request({"model": MODEL, "messages": [heard]}).find_units() == ("audio_seconds",)
    assert MISTRAL_CHAT.request({"model": MODEL, "messages": []}).find_units() == ()


def test_a_mode_brings_a_prompt_of_the_servers():
    """The caller pays for it, and does not see it."""
    asked = {"model": "magistral-medium-latest", "messages": []}
    plain, reasoning = MISTRAL_CHAT.request(asked), MISTRAL_CHAT.request(asked | {"prompt_mode": "reasoning"})
    assert reasoning.input_tokens_bound >= plain.input_tokens_bound + 300


def test_a_conversation_tells_its_usage():
    """The model and the id are those of its first entry: the conversation's own id is that of each answer."""
    facts = read(MISTRAL_CONVERSATIONS, TALK | {"usage": SEARCHED})
    assert (facts.usage, facts.model, facts.response_id) == (FOUND, MODEL, "msg_1")
    called = {"type": "function.call", "id": "fc_1", "name": "f", "arguments": "{}"}
    assert read(MISTRAL_CONVERSATIONS, TALK | {"outputs": [called]}).response_id == "fc_1"


@pytest.mark.parametrize(
    ("tools", "usage"),
    [
        ({"web_search": 1, "web_search_premium": 2}, {"web_searches": 3}),
        ({"code_interpreter": 2}, {"code_executions": 2}),
        ({"image_generation": 1, "document_library": 4}, {"images": 1, "storage_searches": 4}),
        ({"a connector of one's own": 1}, {}),
        (None, {}),
        ([], {}),
    ],
)
def test_the_servers_tools_are_counted(tools, usage):
    """Each use of those that are billed has a unit."""
    assert read(MISTRAL_CONVERSATIONS, TALK | {"usage": USAGE | {"connectors": tools}}).usage == USED | usage


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 20}, {"prompt_tokens": "20", "completion_tokens": 7}])
def test_what_is_not_said_is_not_known(usage):
    """Half a usage is none."""
    assert read(MISTRAL_CONVERSATIONS, TALK | {"usage": usage}).usage is None


def test_a_conversation_streams():
    """The last event has the usage; those before it have the model."""
    stream = events(STARTED, delta("Dan"), delta("ube."), DONE)
    facts = MISTRAL_CONVERSATIONS.stream(stream)
    assert (facts.usage, facts.model, facts.response_id, facts.complete) == (FOUND, MODEL, "msg_1", True)
    assert MISTRAL_CONVERSATIONS.is_complete(stream)


def test_a_cut_conversation_tells_how_much_was_seen():
    """Text in strings or in chunks, and calls."""
    call = delta("", "function.call.delta", name="f", arguments='{"a":1}')
    stream = events(STARTED, delta("h\u00e9"), delta({"type": "text", "text": "llo"}), call)
    facts = MISTRAL_CONVERSATIONS.stream(stream + events(DONE)[:60])
    assert (facts.usage, facts.complete) == (None, False)
    assert facts.visible_output_bytes == len('h\u00e9llof{"a":1}'.encode())
    assert not MISTRAL_CONVERSATIONS.is_complete(stream)
    assert not MISTRAL_CONVERSATIONS.is_complete(events(delta("conversation.response.done")))


def test_an_error_ends_a_conversation():
    """Nothing comes after it."""
    stream = events(STARTED, delta("Dan"), FAILED)
    facts = MISTRAL_CONVERSATIONS.stream(stream)
    assert (facts.error_type, facts.error_message, facts.usage) == ("3000", "it failed", None)
    assert MISTRAL_CONVERSATIONS.is_complete(stream)


@pytest.mark.parametrize(
    "body", [{"object": "error", "message": "no", "type": "invalid"}, {"detail": "Unauthorized"}, {"message": "no"}]
)
def test_an_error_is_read(body):
    """Of the API, or of the gateway before it; also in the place of a stream."""
    for reader in (MISTRAL_CONVERSATIONS, MISTRAL_CHAT, MISTRAL_OCR, MISTRAL_CLASSIFIERS):
        assert read(reader, body).error_message in ("no", "Unauthorized")
        assert reader.stream(json.dumps(body).encode()).error_message in ("no", "Unauthorized")


@pytest.mark.parametrize(
    ("path", "more", "reason"),
    [
        ("/v1/conversations", {}, None),
        ("/v1/conversations", {"agent_id": "ag-1"}, "agent held by the server"),
        ("/v1/conversations", {"tools": [{"type": "code_interpreter"}]}, "hosted tool code_interpreter"),
        ("/v1/conversations/conv_1", {}, "conversation held by the server"),
        ("/v1/conversations/conv_1/restart", {}, "conversation held by the server"),
    ],
)
def test_what_the_server_holds_has_no_bound(path, more, reason):
    """Only a new conversation with a model, and without the server's own tools, can be bounded."""
    facts = MISTRAL_CONVERSATIONS.request(ASKED | more, path)
    assert facts.unbounded == reason
    assert facts.input_tokens_bound >= len("One river.")


def test_the_arguments_of_a_conversation_have_a_place_of_their_own():
    """The maximum too, and only ever a lower one than the caller's."""
    asked = ASKED | {"completion_args": {"max_tokens": 90, "temperature": 0.5, "random_seed": 1}, "stream": True}
    facts = MISTRAL_CONVERSATIONS.request(asked, "/v1/conversations")
    assert (facts.max_output_tokens, facts.stream, facts.model) == (90, True, MODEL)
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 90,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 1,
        "gen_ai.request.stream": True,
    }
    changed = MISTRAL_CONVERSATIONS.with_output_limit(asked, 50)
    assert changed == {"completion_args": {"max_tokens": 50, "temperature": 0.5, "random_seed": 1}}
    assert MISTRAL_CONVERSATIONS.with_output_limit(ASKED, 50) == {"completion_args": {"max_tokens": 50}}
    assert MISTRAL_CONVERSATIONS.with_output_limit(asked, 500)["completion_args"]["max_tokens"] == 90


def test_pages_are_counted():
    """Those that are annotated have a price of their own."""
    body = {"model": "mistral-ocr-2505", "pages": [], "usage_info": {"pages_processed": 3, "doc_size_bytes": 99}}
    facts = read(MISTRAL_OCR, body)
    asked = {"model": "mistral-ocr-2505", "document": {"type": "document_url", "document_url": "https://a/b.pdf"}}
    assert (facts.usage, facts.model) == ({"document_pages": 3}, "mistral-ocr-2505")
    assert MISTRAL_OCR.request(asked).usage_of(facts) == {"document_pages": 3}
    annotated = MISTRAL_OCR.request(asked | {"bbox_annotation_format": {"type": "text"}})
    assert annotated.usage_of(facts) == {"annotated_document_pages": 3}
    assert annotated.usage_of(read(MISTRAL_OCR, {})) is None
    assert (annotated.unbounded, annotated.priced) == ("billed by the page", False)


def test_sound_is_transcribed_by_the_second():
    """The tokens that the answer tells of beside its seconds are not billed."""
    heard = {"model": "voxtral-mini-2602", "text": "Danube.", "usage": USAGE | {"prompt_audio_seconds": 33}}
    assert read(MISTRAL_TRANSCRIPTIONS, heard).usage == {"audio_seconds": 33}
    stream = events({"type": "transcription.text.delta", "text": "Danube."}, {"type": "transcription.done"} | heard)
    facts = MISTRAL_TRANSCRIPTIONS.stream(stream)
    assert (facts.usage, facts.model, facts.complete) == ({"audio_seconds": 33}, "voxtral-mini-2602", True)
    assert MISTRAL_TRANSCRIPTIONS.is_complete(stream)
    cut = MISTRAL_TRANSCRIPTIONS.stream(stream[:90])
    assert (cut.usage, cut.complete) == (None, False)


def test_speech_is_billed_by_the_character():
    """Of an error nothing is billed."""
    facts = MISTRAL_SPEECH.request({"model": "voxtral-tts", "input": "h\u00e9llo", "stream": True})
    assert facts.stream
    stream = events({"type": "speech.audio.delta", "audio_data": "UklG"}, {"type": "speech.audio.done", "usage": USAGE})
    assert facts.usage_of(MISTRAL_SPEECH.stream(stream)) == {"characters_in": 5}
    assert facts.usage_of(read(MISTRAL_SPEECH, {"object": "error", "message": "no"})) is None


@pytest.mark.parametrize("reader", [MISTRAL_CLASSIFIERS, MISTRAL_MODERATIONS], ids=lambda reader: reader.name)
def test_classifiers_only_read(reader):
    """Where an answer tells no usage, none is made up."""
    told = {"id": "m-1", "model": "m", "results": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    assert read(reader, told).usage == {"tokens_in": 8, "tokens_out": 0}
    assert read(reader, told | {"usage": None}).usage is None
    facts = reader.request({"model": "m", "input": ["one", "two"]})
    assert facts.input_tokens_bound >= 6
    assert (facts.max_output_tokens, facts.limitable) == (0, False)


@pytest.mark.parametrize(
    ("path", "reader"),
    [
        ("/v1/fim/completions", MISTRAL_FIM),
        ("/v1/conversations", MISTRAL_CONVERSATIONS),
        ("/v1/conversations/conv_1/restart", MISTRAL_CONVERSATIONS),
        ("/v1/ocr", MISTRAL_OCR),
        ("/providers/mistral/azure/ocr", MISTRAL_OCR),
        ("/v1/chat/moderations", MISTRAL_MODERATIONS),
        ("/v1/classifications", MISTRAL_CLASSIFIERS),
        ("/v1/chat/classifications", MISTRAL_CLASSIFIERS),
    ],
)
def test_each_endpoint_has_its_reader(path, reader):
    """What ends like one of OpenAI's is Mistral's all the same."""
    assert reader_for_path(path) is reader
