"""mistralai, against the wire format of its API (docs.mistral.ai/api). Before 2.0 its package has another layout."""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import pytest
from contract import *  # noqa: F403
from contract import Case, attempts_of_one_call, driven, fully, read, settled_by_its_last_event
from wire_server import Reply, sse

from tollspan.budget import CallRefused, budget

if find_spec("mistralai") is None:
    pytest.skip("the mistralai SDK is not installed", allow_module_level=True)
PACKAGE = "mistralai" if find_spec("mistralai.chat") else "mistralai.client"
if not hasattr(import_module(PACKAGE), "Mistral"):
    pytest.skip("mistralai before 1.0 has no rows", allow_module_level=True)
mistralai = import_module(PACKAGE)

MODEL = "mistral-small-latest"
USAGE = {
    "prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27, "prompt_tokens_details": {"cached_tokens": 16},
}  # fmt: skip
USED = {"tokens_in": 20, "tokens_out": 7, "tokens_cache_read": 16}
_ASK = [{"role": "user", "content": "One river."}]
_ONE = {"id": "cmpl-0123456789abcdef", "object": "chat.completion", "created": 1700000000, "model": MODEL}
_CHUNK = _ONE | {"object": "chat.completion.chunk"}
_WHEN = {"created_at": "2026-11-01T10:00:00Z", "completed_at": "2026-11-01T10:00:01Z"}
_REFUSED = Reply(
    {"object": "error", "message": "Invalid model", "type": "invalid_model", "param": None, "code": "1500"}, status=400
)


def _choice(text, reason=None):
    return {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}


_MESSAGE = {"role": "assistant", "content": "Danube.", "tool_calls": None}
_WHOLE = Reply(_ONE | {"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}], "usage": USAGE})
_STREAM = sse(
    _CHUNK | {"choices": [_choice("Dan")]},
    _CHUNK | {"choices": [_choice("ube")]},
    _CHUNK | {"choices": [_choice(".", "stop")], "usage": USAGE},
    done=True,
)
_SAID = {
    "object": "entry", "type": "message.output", "id": "msg_0123456789abcdef", "model": MODEL, "role": "assistant",
    "content": "Danube.",
}  # fmt: skip
_SEARCHED = {"object": "entry", "type": "tool.execution", "id": "tool_exec_1", "name": "web_search", "arguments": "{}"}
# What the search brought in is counted apart from the prompt, and is in the total.
_TOLD = {
    "prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 127, "connector_tokens": 100,
    "connectors": {"web_search": 1},
}  # fmt: skip
_TALKED = {"tokens_in": 120, "tokens_out": 7, "web_searches": 1}
_TALK = Reply(
    {"object": "conversation.response", "conversation_id": "conv_1", "usage": _TOLD,
     "outputs": [_SEARCHED | _WHEN, _SAID | _WHEN]}
)  # fmt: skip


def _event(kind, **more):
    return {"type": kind, "created_at": _WHEN["created_at"]} | more


_DELTA = {"output_index": 0, "id": _SAID["id"], "content_index": 0, "model": MODEL, "role": "assistant"}


def _events(*events):
    """Each event's name goes before its data, as Mistral does it."""
    plain = sse(*events)
    names = (event["type"].encode() for event in events)
    return replace(plain, chunks=tuple(b"event: %s\n%s" % pair for pair in zip(names, plain.chunks, strict=True)))


_TALK_STREAM = _events(
    _event("conversation.response.started", conversation_id="conv_1"),
    _event("message.output.delta", content="Dan", **_DELTA),
    _event("message.output.delta", content="ube.", **_DELTA),
    _event("conversation.response.done", usage=_TOLD),
)
_EMBEDDED = {
    "id": "e-1", "object": "list", "model": "mistral-embed",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "usage": {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0, "prompt_audio_seconds": None},
}  # fmt: skip
_PAGE = {"index": 0, "markdown": "text", "images": [], "dimensions": None}
_READ = {"pages": [_PAGE], "model": "mistral-ocr-2505", "usage_info": {"pages_processed": 1, "doc_size_bytes": 99}}
_JUDGED = {
    "id": "m-1", "model": "mistral-moderation-2411",
    "results": [{"categories": {"sexual": False}, "category_scores": {"sexual": 0.1}}],
}  # fmt: skip
_CLASSED = {"id": "m-2", "model": "ft:classifier", "results": [{"mood": {"scores": {"good": 0.9}}}]}
_HEARD = {
    "model": "voxtral-mini-2602", "text": "Danube.", "language": "en", "segments": [],
    "usage": {"prompt_tokens": 4, "completion_tokens": 35, "total_tokens": 464, "prompt_audio_seconds": 33},
}  # fmt: skip
_HEARD_STREAM = _events(
    {"type": "transcription.language", "audio_language": "en"},
    {"type": "transcription.text.delta", "text": "Dan"},
    {"type": "transcription.text.delta", "text": "ube."},
    {"type": "transcription.done"} | _HEARD,
)
_SOUND = {"model": "voxtral-mini-2602", "file": {"file_name": "a.wav", "content": b"RIFF"}}


def _client(url):
    return mistralai.Mistral(api_key="test", server_url=url)


def _case(name, site, run, reply, usage, *, asynchronous, model=MODEL, **more):
    """`run` is the method, found on a client, and its arguments."""
    find, asked = run
    suffix = "_async" if asynchronous else ""
    return Case(
        name=name,
        site=f"{PACKAGE}.{site}{suffix}",
        client=_client,
        run=lambda client: getattr(find(client), site.rpartition(".")[2] + suffix)(**asked),
        reply=reply,
        usage=usage,
        provider="mistral_ai",
        model=model,
        asynchronous=asynchronous,
        refusal=_REFUSED,
        **more,
    )


def _chats(*, asynchronous):
    same = {"asynchronous": asynchronous}
    stream = same | {"streams": True}
    chat = lambda c: c.chat, {"model": MODEL, "messages": _ASK}
    agent = lambda c: c.agents, {"agent_id": "ag-1", "messages": _ASK}
    fim = lambda c: c.fim, {"model": MODEL, "prompt": "def f(", "suffix": "return 1"}
    return [
        _case("chat", "chat:Chat.complete", chat, _WHOLE, USED, **same),
        _case("chat stream", "chat:Chat.stream", chat, _STREAM, USED, **stream),
        _case("agent", "agents:Agents.complete", agent, _WHOLE, USED, bounded=False, **same),
        _case("agent stream", "agents:Agents.stream", agent, _STREAM, USED, bounded=False, **stream),
        _case("fim", "fim:Fim.complete", fim, _WHOLE, USED, operation="text_completion", **same),
        _case("fim stream", "fim:Fim.stream", fim, _STREAM, USED, operation="text_completion", **stream),
    ]


def _conversations(*, asynchronous):
    same = {"asynchronous": asynchronous}
    site = "conversations:Conversations"
    first = lambda c: c.beta.conversations, {"model": MODEL, "inputs": "One river."}
    next_one = lambda c: c.beta.conversations, {"conversation_id": "conv_1", "inputs": "And another."}
    again = lambda c: c.beta.conversations, {
        "conversation_id": "conv_1", "inputs": "And another.", "from_entry_id": "e"
    }  # fmt: skip
    rows = (("start", first, True), ("append", next_one, False), ("restart", again, False))
    return [
        _case(f"{method}{stream and ' stream'}", f"{site}.{method}{stream}", run, reply, _TALKED,
              bounded=bounded, streams=bool(stream), **same)
        for method, run, bounded in rows
        for stream, reply in (("", _TALK), ("_stream", _TALK_STREAM))
    ]  # fmt: skip


def _others(*, asynchronous):
    same = {"asynchronous": asynchronous}
    pieces = same | {"bounded": False}
    document = {"type": "document_url", "document_url": "https://a/b.pdf"}
    text = {"model": "mistral-moderation-2411", "inputs": ["one"]}
    chat = {"model": "mistral-moderation-2411", "inputs": [_ASK]}
    classed = {"model": "ft:classifier", "inputs": ["one"]}
    talk = {"model": "ft:classifier", "input" if PACKAGE == "mistralai.client" else "inputs": [{"messages": _ASK}]}
    judging = pieces | {"operation": "moderation", "model": "mistral-moderation-2411"}
    classing = pieces | {"operation": "classify", "model": "ft:classifier"}
    hearing = pieces | {"operation": "transcription", "model": "voxtral-mini-2602"}
    sites = "classifiers:Classifiers"
    return [
        _case(
            "embeddings", "embeddings:Embeddings.create",
            (lambda c: c.embeddings, {"model": "mistral-embed", "inputs": ["one"]}), Reply(_EMBEDDED),
            {"tokens_in": 4, "tokens_out": 0}, operation="embeddings", model="mistral-embed", **same,
        ),
        _case(
            "ocr", "ocr:Ocr.process", (lambda c: c.ocr, {"model": "mistral-ocr-2505", "document": document}),
            Reply(_READ), {"document_pages": 1}, operation="generate_content", model="mistral-ocr-2505", **pieces,
        ),
        _case("moderation", f"{sites}.moderate", (lambda c: c.classifiers, text), Reply(_JUDGED), None, **judging),
        _case(
            "moderation of a chat", f"{sites}.moderate_chat", (lambda c: c.classifiers, chat), Reply(_JUDGED), None,
            **judging,
        ),
        _case(
            "classification", f"{sites}.classify", (lambda c: c.classifiers, classed), Reply(_CLASSED), None,
            **classing,
        ),
        _case(
            "classification of a chat", f"{sites}.classify_chat", (lambda c: c.classifiers, talk), Reply(_CLASSED),
            None, **classing,
        ),
        _case(
            "transcription", "transcriptions:Transcriptions.complete", (lambda c: c.audio.transcriptions, _SOUND),
            Reply(_HEARD), {"audio_seconds": 33}, **hearing,
        ),
        _case(
            "transcription stream", "transcriptions:Transcriptions.stream",
            (lambda c: c.audio.transcriptions, _SOUND), _HEARD_STREAM, {"audio_seconds": 33}, streams=True, **hearing,
        ),
    ]  # fmt: skip


def _newest(*, asynchronous):
    """What came with 2.1 and 3.4."""
    pieces = {"asynchronous": asynchronous, "bounded": False, "operation": "text_to_speech", "model": "voxtral-tts"}
    spoken = {"model": "voxtral-tts", "input": "Danube.", "voice_id": "v-1"}
    speech = _events(
        {"type": "speech.audio.delta", "audio_data": "UklGRg=="},
        {"type": "speech.audio.delta", "audio_data": "UklGRg=="},
        {"type": "speech.audio.done", "usage": USAGE},
    )
    return [
        _case(
            "speech", "speech:Speech.complete", (lambda c: c.audio.speech, spoken), Reply({"audio_data": "UklGRg=="}),
            {"characters_in": 7}, **pieces,
        ),
        _case(
            "speech stream", "speech:Speech.complete", (lambda c: c.audio.speech, spoken | {"stream": True}), speech,
            {"characters_in": 7}, streams=True, **pieces,
        ),
    ]  # fmt: skip


_PARTS = [_chats, _conversations, _others, *([_newest] if find_spec(f"{PACKAGE}.speech") else [])]
CASES = [case for asynchronous in (False, True) for part in _PARTS for case in part(asynchronous=asynchronous)]


CHATS = [case for case in CASES if case.name in ("chat", "chat stream")]
LIMITED = [case for case in CASES if case.bounded and case.operation in ("chat", "text_completion")]


@pytest.mark.parametrize("way", CHATS, ids=lambda way: way.id)
def test_the_retries_of_the_sdk_are_attempts_of_one_call(way, server, instrumented):
    """Each attempt is seen, and the call is one commit."""
    retries = import_module(f"{PACKAGE}.utils")
    patient = retries.RetryConfig("backoff", retries.BackoffStrategy(1, 2, 1.0, 60_000), False)
    busy = Reply({"object": "error", "message": "busy", "type": "internal", "code": "1"}, status=503)
    attempts_of_one_call(
        replace(way, client=lambda url: mistralai.Mistral(api_key="test", server_url=url, retry_config=patient)),
        server, instrumented, busy,
    )  # fmt: skip


@pytest.mark.parametrize("way", LIMITED, ids=lambda way: way.id)
def test_a_budget_limits_the_output(way, server, instrumented):
    """What a budget has left buys so much output and no more: that is what the server is told."""
    server.reply = way.reply
    with instrumented() as seen:
        with budget("0.0005 USD", name="small"):
            driven(way, server, fully(way))
        asked = server.asked[-1].json
        assert 0 < asked.get("completion_args", asked)["max_tokens"] < 2_000
        assert seen.end.status == "ok"


def test_sound_in_a_chat_is_billed_by_the_second(server, instrumented):
    """Its seconds are counted beside the tokens, and a strict budget cannot tell them before."""
    server.reply = Reply(_WHOLE.body | {"model": "voxtral-small-2507", "usage": USAGE | {"prompt_audio_seconds": 20}})
    heard = [{"role": "user", "content": [{"type": "input_audio", "input_audio": "UklGRg=="}]}]
    with instrumented() as seen:
        with budget("1 USD", name="strict"), pytest.raises(CallRefused, match="sound"):
            _client(server.url).chat.complete(model="voxtral-small-2507", messages=heard)
        assert not server.asked
        _client(server.url).chat.complete(model="voxtral-small-2507", messages=heard)
        (event,) = seen.of("commit")
    assert event.usage == USED | {"audio_seconds": 20}
    assert event.cost_actual_usd > 0


def test_annotated_pages_have_a_price_of_their_own(server, instrumented):
    """They are not counted as if their text had only been read."""
    server.reply = Reply(_READ | {"document_annotation": "{}"})
    with instrumented() as seen:
        _client(server.url).ocr.process(
            model="mistral-ocr-2505",
            document={"type": "document_url", "document_url": "https://a/b.pdf"},
            document_annotation_format={"type": "json_object"},
        )
        assert dict(seen.end.usage) == {"annotated_document_pages": 1}


@pytest.mark.parametrize("way", [case for case in CASES if case.name == "start stream"], ids=lambda way: way.id)
def test_an_error_in_a_conversation_ends_it(way, server, instrumented):
    """The server tells of it as an event: that is one commit, whose cost nobody knows."""
    failed = _events(_event("conversation.response.error", message="it failed", code=3000))
    server.reply = replace(way.reply, chunks=way.reply.chunks[:2] + failed.chunks)
    with instrumented() as seen:
        driven(way, server, read)
        event = seen.end
    assert (event.event_type, event.status, event.error_message) == ("commit", "error", "it failed")
    assert event.usage == {}


def test_asking_for_a_conversation_is_no_call(server, instrumented):
    """What else the server is asked for passes untouched."""
    server.reply = Reply({"object": "conversation.messages", "conversation_id": "conv_1", "messages": []})
    with instrumented() as seen:
        _client(server.url).beta.conversations.get_messages(conversation_id="conv_1")
        assert seen.events == []


@pytest.mark.parametrize(
    "way", [case for case in CASES if "start" in case.name and case.streams], ids=lambda way: way.id
)
def test_the_last_event_is_the_end(way, server, instrumented):
    """Whoever has it need not read on, nor close the stream, for the call to be settled."""
    settled_by_its_last_event(way, server, instrumented)
