"""cohere, against the wire format of its API, versions 1 and 2 (docs.cohere.com/reference)."""

import json
from dataclasses import replace
from inspect import signature

import pytest
from contract import *  # noqa: F403
from contract import Case, attempts_of_one_call, driven, fully, settled_by_its_last_event
from wire_server import Reply, ndjson, sse

from tollspan.budget import budget

cohere = pytest.importorskip("cohere", reason="the cohere SDK is not installed")

# When an async stream of this SDK is dropped, its generators are closed in disorder, without us as well.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MODEL = "command-r-08-2024"
BILLED = {"input_tokens": 7, "output_tokens": 9}
COUNTED = {"input_tokens": 69, "output_tokens": 11}
USED = {"tokens_in": 7, "tokens_out": 9}
_META = {"api_version": {"version": "1"}, "billed_units": BILLED, "tokens": COUNTED, "cached_tokens": 48}
_SPENT = {"billed_units": BILLED, "tokens": COUNTED, "cached_tokens": 48}
_REFUSED = Reply({"id": "e-1", "message": "invalid request: no such model"}, status=400)
_ASK = [{"role": "user", "content": "One river."}]


def _delta(kind, **delta):
    return {"type": kind, "index": 0, "delta": delta}


def _text(text):
    return _delta("content-delta", message={"content": {"text": text}})


_V1 = {
    "response_id": "r-1", "generation_id": "g-1", "text": "Danube.", "finish_reason": "COMPLETE", "meta": _META,
    "chat_history": [{"role": "USER", "message": "One river."}, {"role": "CHATBOT", "message": "Danube."}],
}  # fmt: skip
_V1_STREAM = ndjson(
    {"is_finished": False, "event_type": "stream-start", "generation_id": "g-1"},
    {"is_finished": False, "event_type": "text-generation", "text": "Dan"},
    {"is_finished": False, "event_type": "text-generation", "text": "ube."},
    {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": _V1},
)
_V2 = {
    "id": "g-2", "finish_reason": "COMPLETE", "usage": _SPENT,
    "message": {"role": "assistant", "content": [{"type": "text", "text": "Danube."}]},
}  # fmt: skip
_V2_STREAM = sse(
    {"id": "g-2", "type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}},
    _delta("content-start", message={"content": {"type": "text", "text": ""}}),
    _text("Dan"),
    _text("ube."),
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": _SPENT}},
)
_GENERATED = {"id": "g-3", "prompt": "One river.", "generations": [{"id": "g-4", "text": "Danube."}], "meta": _META}
_GENERATED_STREAM = ndjson(
    {"is_finished": False, "event_type": "text-generation", "text": "Dan"},
    {"is_finished": False, "event_type": "text-generation", "text": "ube."},
    {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": _GENERATED},
)


def _meta(**billed):
    return {"api_version": {"version": "2"}, "billed_units": billed}


_EMBEDDED = {"id": "e-1", "response_type": "embeddings_by_type", "embeddings": {"float": [[0.5]]}, "texts": ["one"]}
_RANKED = {"id": "k-1", "results": [{"index": 0, "relevance_score": 0.5}], "meta": _meta(search_units=1)}
_CLASSIFIED = {
    "id": "c-1", "meta": _meta(classifications=1),
    "classifications": [
        {"id": "c-2", "input": "one", "predictions": ["a"], "confidences": [0.9], "labels": {"a": {"confidence": 0.9}},
         "classification_type": "single-label", "prediction": "a", "confidence": 0.9}
    ],
}  # fmt: skip
_PARSED = {"id": "p-1", "pages": [{"index": 0, "markdown": "text"}], "meta": _meta(pages=1)}


def _client(url, name):
    made = getattr(cohere, name)
    patience = {"max_retries": 0} if "max_retries" in signature(made).parameters else {}
    return made("co-test", base_url=url, **patience)


def _case(name, run, reply, usage, *, site, version=2, asynchronous=False, streams=False, model=MODEL, **more):
    made = f"{'Async' if asynchronous else ''}Client{'V2' if version == 2 else ''}"
    module, cls = ("cohere.v2.client", "V2Client") if version == 2 else ("cohere.base_client", "BaseCohere")
    return Case(
        name=f"{name} v{version}",
        site=f"{module}:{'Async' if asynchronous else ''}{cls}.{site}",
        client=lambda url: _client(url, made),
        run=run,
        reply=reply,
        usage=usage,
        provider="cohere",
        model=model,
        streams=streams,
        asynchronous=asynchronous,
        refusal=_REFUSED,
        **more,
    )


def _cases(*, asynchronous):
    same = {"asynchronous": asynchronous}
    stream = same | {"streams": True}
    old = same | {"version": 1}
    text = {"operation": "text_completion"}
    embedding = {"operation": "embeddings", "model": "embed-v4.0"}
    asked = {"model": "embed-v4.0", "input_type": "search_document", "embedding_types": ["float"], "texts": ["one"]}
    rank = {"model": "rerank-v3.5", "query": "q", "documents": ["one"]}
    pieces = {"bounded": False}
    return [
        _case("chat", lambda c: c.chat(model=MODEL, messages=_ASK), Reply(_V2), USED, site="chat", **same),
        _case(
            "chat stream", lambda c: c.chat_stream(model=MODEL, messages=_ASK), _V2_STREAM, USED,
            site="chat_stream", **stream,
        ),
        _case("chat", lambda c: c.chat(model=MODEL, message="One river."), Reply(_V1), USED, site="chat", **old),
        _case(
            "chat stream", lambda c: c.chat_stream(model=MODEL, message="One river."), _V1_STREAM, USED,
            site="chat_stream", cuttable=False, **stream | old,
        ),
        _case(
            "generate", lambda c: c.generate(model=MODEL, prompt="One river."), Reply(_GENERATED), USED,
            site="generate", **old | text,
        ),
        _case(
            "generate stream", lambda c: c.generate_stream(model=MODEL, prompt="One river."), _GENERATED_STREAM, USED,
            site="generate_stream", cuttable=False, **stream | old | text,
        ),
        _case(
            "summarize", lambda c: c.summarize(model=MODEL, text="A river."),
            Reply({"id": "s-1", "summary": "River.", "meta": _META}), USED, site="summarize", **old | text,
        ),
        _case(
            "embed", lambda c: c.embed(**asked), Reply(_EMBEDDED | {"meta": _meta(input_tokens=2, image_tokens=0)}),
            {"tokens_in": 2, "tokens_out": 0}, site="embed", **same | embedding,
        ),
        _case(
            "embed", lambda c: c.embed(**asked), Reply(_EMBEDDED | {"meta": _meta(input_tokens=2)}),
            {"tokens_in": 2, "tokens_out": 0}, site="embed", **old | embedding,
        ),
        _case(
            "embed an image", lambda c: c.embed(**asked | {"texts": None, "images": ["data:image/png;base64,AA=="]}),
            Reply(_EMBEDDED | {"meta": _meta(images=1, image_tokens=334, input_tokens=3)}),
            {"tokens_in": 337, "tokens_out": 0, "tokens_image_in": 334, "images": 1}, site="embed",
            **same | embedding | pieces,
        ),
        _case(
            "rerank", lambda c: c.rerank(**rank), Reply(_RANKED), {"rerank_searches": 1}, site="rerank",
            operation="rerank", model="rerank-v3.5", **same | pieces,
        ),
        _case(
            "rerank", lambda c: c.rerank(**rank), Reply(_RANKED), {"rerank_searches": 1}, site="rerank",
            operation="rerank", model="rerank-v3.5", **old | pieces,
        ),
        _case(
            "classify", lambda c: c.classify(model="embed-english-v3.0", inputs=["one"]), Reply(_CLASSIFIED),
            {"classifications": 1}, site="classify", operation="classify", model="embed-english-v3.0", **old | pieces,
        ),
        _case(
            "parse", lambda c: c.parse(model="parse-v5.0", document={"type": "image_url", "image_url": "https://a/b"}),
            Reply(_PARSED), {"document_pages": 1}, site="parse", operation="generate_content", model="parse-v5.0",
            **same | pieces,
        ),
    ]  # fmt: skip


CASES = [
    case
    for asynchronous in (False, True)
    for case in _cases(asynchronous=asynchronous)
    if case.name != "parse v2" or hasattr(cohere.ClientV2, "parse")
]


def test_texts_that_are_sent_in_parts_are_as_many_calls(server, instrumented):
    """The SDK sends at most 96 texts at a time, from threads of its own; each request is billed by itself."""
    server.reply = lambda asked: Reply(
        {"id": "e-1", "response_type": "embeddings_floats", "texts": asked.json["texts"],
         "embeddings": [[0.5]] * len(asked.json["texts"]), "meta": _meta(input_tokens=len(asked.json["texts"]))}
    )  # fmt: skip
    with instrumented() as seen:
        with budget("1 USD", name="wide") as limit:
            _client(server.url, "Client").embed(model="embed-v4.0", input_type="clustering", texts=["one"] * 100)
            assert limit.spent > 0
        assert sorted(event.usage["tokens_in"] for event in seen.of("commit")) == [4, 96]
    assert not seen.open_holds


LIMITED = [case for case in CASES if case.operation == "chat"]


@pytest.mark.parametrize("way", LIMITED, ids=lambda way: way.id)
def test_a_budget_limits_the_output(way, server, instrumented):
    """What a budget has left buys so much output and no more: that is what the server is told."""
    server.reply = way.reply
    with instrumented() as seen:
        with budget("0.0005 USD", name="small"):
            driven(way, server, fully(way))
        assert 0 < server.asked[-1].json["max_tokens"] < 1_000
        assert seen.end.status == "ok"


@pytest.mark.parametrize("name", ["ClientV2", "AsyncClientV2"])
def test_the_retries_of_the_sdk_are_attempts_of_one_call(name, server, instrumented):
    """Each attempt is seen, and the call is one commit; streams are not tried again."""
    busy = Reply({"message": "try again"}, status=503, headers={"retry-after-ms": "1"})
    way = next(case for case in LIMITED if case.asynchronous is name.startswith("Async"))
    asked = {"model": MODEL, "messages": _ASK, "request_options": {"max_retries": 3}}
    patient = replace(way, run=lambda client: client.chat(**asked), reply=Reply(_V2), usage=USED, streams=False)
    attempts_of_one_call(patient, server, instrumented, busy)


def test_raw_responses_are_calls_too(server, instrumented):
    """`with_raw_response` goes its own way into the SDK."""
    with instrumented() as seen:
        server.reply = Reply(_V2)
        raw = _client(server.url, "ClientV2").with_raw_response.chat(model=MODEL, messages=_ASK)
        assert raw.data.id == "g-2"
        server.reply = _V2_STREAM
        with _client(server.url, "ClientV2").with_raw_response.chat_stream(model=MODEL, messages=_ASK) as stream:
            assert len(list(stream.data)) == 6
        assert [(event.category, dict(event.usage)) for event in seen.of("commit")] == [(None, USED)] * 2


def test_tokenizing_costs_nothing(server, instrumented):
    """What else the server is asked for passes untouched."""
    server.reply = Reply({"tokens": [1], "token_strings": ["a"], "meta": {"api_version": {"version": "1"}}})
    with instrumented() as seen:
        _client(server.url, "Client").tokenize(text="a", model=MODEL, offline=False)
        assert seen.events == []


@pytest.mark.skipif(not hasattr(cohere.Client, "audio"), reason="this version of the SDK has no audio")
def test_a_form_tells_its_model(server, instrumented):
    """A transcription's request is a form, and its answer a text: of it only the model is known."""
    server.reply = Reply({"text": "Danube."})
    with instrumented() as seen:
        answer = _client(server.url, "ClientV2").audio.transcriptions.create(
            model="cohere-transcribe", language="en", file=("a.wav", b"RIFF")
        )
        assert answer.text == "Danube."
        event = seen.end
    assert (event.event_type, event.provider, event.model, event.usage) == ("commit", "cohere", "cohere-transcribe", {})
    assert event.cost_source == "unpriced"


def test_nothing_of_what_was_said_is_kept(server, instrumented):
    """Neither questions nor answers are in the ledger or on spans."""
    server.reply = _V2_STREAM
    with instrumented() as seen:
        list(_client(server.url, "ClientV2").chat_stream(model=MODEL, messages=[{"role": "user", "content": "s3cret"}]))
        kept = json.dumps([str(event) for event in seen.events] + [span.to_json() for span in seen.spans])
    assert "s3cret" not in kept
    assert "ube." not in kept


@pytest.mark.parametrize("way", [case for case in CASES if case.streams], ids=lambda way: way.id)
def test_the_last_event_is_the_end(way, server, instrumented):
    """Whoever has it need not read on, nor close the stream, for the call to be settled."""
    settled_by_its_last_event(way, server, instrumented)
