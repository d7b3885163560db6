"""No reader raises, whatever comes: cut, split, damaged, nested, wrongly typed, or meant for another one.

Every reader of the table is asked about everything, so that a new one needs nothing here.
"""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_pool import ANSWERS, FIELDS, INNER, STREAMS, TYPES, WHOLE, sse

from tollspan.instrumentation._readers import FETCHES, READERS, RequestFacts, ResponseFacts, reader_for_path
from tollspan.instrumentation._readers._dashscope._sockets import DASHSCOPE_TASK
from tollspan.instrumentation._readers._gemini._live import GEMINI_LIVE
from tollspan.instrumentation._readers._openai._live import OPENAI_LIVE
from tollspan.instrumentation._readers._realtime import OPENAI_HEARING, OPENAI_REALTIME, QWEN_HEARING, QWEN_REALTIME
from tollspan.ledger._prices._rates import UNITS

# The API refuses a smaller maximum of OpenAI's responses.
FEWEST = 16
EVERYTHING = {**WHOLE, **{f"{name}, streamed": received for name, received in STREAMS.items()}}
OWN = {"openai.chat": "openai chat", "openai.responses": "openai responses", "anthropic.messages": "anthropic"}

# Those of websockets are told by no path.
SOCKETS = (GEMINI_LIVE, DASHSCOPE_TASK, OPENAI_LIVE, OPENAI_REALTIME, QWEN_REALTIME, OPENAI_HEARING, QWEN_HEARING)
readers = pytest.mark.parametrize(
    "reader", [*READERS, *SOCKETS], ids=lambda reader: f"{reader.name}-{own_path(reader)}"
)
# One example asks much; and the first text that Hypothesis makes takes seconds.
often = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([*TYPES, "a://b"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        | st.dictionaries(st.sampled_from(INNER), inner, max_size=4)
    ),
    max_leaves=10,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8)


def own_path(reader):
    """A path that leads to the reader, if one does."""
    return next(iter(reader.path_suffixes), "")


def paths_of(reader):
    """Paths that the reader may be asked about."""
    for suffix in reader.path_suffixes:
        yield from (suffix, f"/v1beta/models/m%3A1{suffix}", f"/model/vendor.m-v1:0{suffix}", f"//{suffix}/?a=b:c")
    yield from ("", "/", "\u00e9:" * 500)


def paths_in(value, path=()):
    """The paths to all values inside of a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_in(inner, (*path, key))


def replaced(value, path, new):
    """A copy with another value at a path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def check_usage(usage):
    """A usage is of known units, each a number of them; where there are tokens, there are both totals."""
    for key, value in usage.items():
        assert key in UNITS, f"{key} is no unit of the ledger"
        assert type(value) in (int, float)
        assert 0 <= value < math.inf
        assert type(value) is int or not key.startswith("tokens_"), f"{key} is {value}"


def check(facts):
    """The facts of an answer are of the types that they say."""
    assert isinstance(facts, ResponseFacts)
    assert type(facts.visible_output_bytes) is int
    assert facts.visible_output_bytes >= 0
    assert type(facts.complete) is bool
    for text in (facts.model, facts.response_id, facts.service_tier, facts.error_type, facts.error_message):
        assert text is None or (isinstance(text, str) and text)
    assert isinstance(facts.finish_reasons, tuple)
    assert all(isinstance(reason, str) for reason in facts.finish_reasons)
    assert facts.created is None or (type(facts.created) in (int, float) and math.isfinite(facts.created))
    assert facts.cost_usd is None or (isinstance(facts.cost_usd, Decimal) and facts.cost_usd >= 0)
    assert facts.error_message is None or len(facts.error_message) <= 200
    if facts.usage is not None:
        check_usage(facts.usage)
    for model, usage in facts.others:
        assert isinstance(model, str)
        check_usage(usage)


def check_request(facts):
    """The facts of a request are of the types that they say, and OpenTelemetry takes its attributes."""
    assert isinstance(facts, RequestFacts)
    assert facts.model is None or (isinstance(facts.model, str) and facts.model)
    assert type(facts.stream) is bool
    assert type(facts.input_tokens_bound) is int
    assert facts.input_tokens_bound >= 0
    assert type(facts.choices) is int
    assert facts.choices >= 1
    assert facts.max_output_tokens is None or (type(facts.max_output_tokens) is int and facts.max_output_tokens >= 0)
    assert facts.unbounded is None or isinstance(facts.unbounded, str)
    assert facts.service_tier is None or isinstance(facts.service_tier, str)
    assert set(facts.find_units()) <= UNITS.keys()
    for name, value in facts.attributes.items():
        assert isinstance(name, str)
        for item in value if isinstance(value, list | tuple) else (value,):
            assert type(item) in (bool, int, float, str)
            assert type(item) is not int or -(2**63) <= item < 2**63


def ask(reader, received):
    """Ask a reader all that can be asked about bytes; gives the facts of a stream."""
    streamed = reader.stream(received)
    for facts in (reader.response(received), streamed):
        reader.take_headers(facts, {})
        check(facts)
    assert type(reader.is_complete(received)) is bool
    return streamed


# ---- answers


@readers
def test_answers_and_streams_of_everybody_cut_anywhere(reader):
    """Whatever vendor's answer comes, cut at whatever byte, is read or is none."""
    for name, received in EVERYTHING.items():
        step = 1 if OWN.get(reader.name) == name.partition(",")[0] else 29
        for cut in range(0, len(received) + 1, step):
            ask(reader, received[:cut])
        ask(reader, received)


@pytest.mark.parametrize(("name", "sample"), OWN.items())
def test_own_streams_cut_anywhere(name, sample):
    """A stream cut at any byte knows its whole usage or none, and is complete only at its end."""
    reader, received = next(r for r in READERS if r.name == name), STREAMS[sample]
    whole = reader.stream(received)
    assert whole.usage
    for cut in range(len(received)):
        facts = reader.stream(received[:cut])
        assert facts.usage in (None, whole.usage)
        assert facts.complete is reader.is_complete(received[:cut])
        assert not facts.complete or facts.usage == whole.usage


@pytest.mark.parametrize(("name", "sample"), OWN.items())
def test_own_streams_with_any_middle_left_out(name, sample):
    """A stream without a part of its middle gives the right usage or none."""
    reader, received = next(r for r in READERS if r.name == name), STREAMS[sample]
    whole = reader.stream(received)
    for start in range(0, len(received), 17):
        for stop in range(start, len(received), 61):
            facts = ask(reader, received[:start] + b"\n\n" + received[stop:])
            assert (None if facts.usage is None else facts.usage["tokens_out"]) in (None, whole.usage["tokens_out"])


@readers
@often
@given(st.data())
def test_events_in_any_order(reader, data):
    """Events may come in any order, more than once, or with those of other vendors between them."""
    blocks = [block for received in STREAMS.values() for block in received.split(b"\n\n")]
    chosen = data.draw(st.lists(st.sampled_from(blocks), max_size=8))
    ends = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n"])
    ask(reader, data.draw(ends).join(chosen))


@readers
@often
@given(st.sampled_from(sorted(EVERYTHING)), st.binary(max_size=60), st.integers(0, 2_000), st.integers(0, 300))
def test_damaged_answers(reader, name, junk, at, dropped):
    """Bytes lost or put in anywhere are harmless."""
    received = EVERYTHING[name]
    ask(reader, received[:at] + junk + received[at + dropped :])


@readers
@often
@given(st.binary(max_size=200))
def test_garbage(reader, junk):
    """Garbage is read as nothing."""
    ask(reader, junk)
    ask(reader, b"data: " + junk + b"\n\n")


@readers
def test_other_encodings(reader):
    """An answer in UTF-16, UTF-32 or Latin-1, or with a byte order mark, is harmless."""
    for answer in ANSWERS.values():
        text = json.dumps(answer, ensure_ascii=False)
        for encoding in ("utf-16", "utf-32", "latin-1", "utf-8-sig"):
            ask(reader, text.encode(encoding, "replace"))
            ask(reader, f"data: {text}\n\n".encode(encoding, "replace"))


WRONG = [None, True, -1, 1.5, 10**400, float("nan"), float("-inf"), "7", "", [], {}, [None], {"type": []}, [[]] * 2]


@readers
@pytest.mark.parametrize("new", WRONG, ids=lambda new: repr(new)[:12])
def test_every_field_of_a_wrong_type(reader, new):
    """Any field of any answer may be of any type: no reader raises, and no count is made up."""
    for answer in ANSWERS.values():
        for path in paths_in(answer):
            damaged = replaced(answer, path, new)
            check(reader.response(json.dumps(damaged).encode()))
            event = {"type": "response.completed", "response": damaged, "message": damaged, "choices": damaged}
            check(reader.stream(f"data: {json.dumps(event)}\n\ndata: {json.dumps(damaged)}\n\n".encode()))


KINDS = ["message_start", "message_delta", "content_block_delta", "response.completed", "message-end", "error"]


@readers
@often
@given(JSON, JSON, st.sampled_from(KINDS))
def test_any_json(reader, value, other, kind):
    """Any JSON at the places where the readers look is harmless."""
    keys = ("usage", "choices", "message", "delta", "response", "error", "x_groq", "usageMetadata", "output", "meta")
    event = dict.fromkeys(keys, value) | {"content_block": other, "interaction": other, "metrics": other}
    ask(reader, sse(event | {"type": kind, "event_type": kind}) * 2)
    ask(reader, json.dumps(event | {"type": kind}).encode())
    ask(reader, json.dumps(value).encode())


@readers
def test_huge_answers(reader):
    """An answer of megabytes, in one field or in many events, is read."""
    big = "x" * 3_000_000
    ask(reader, json.dumps({"choices": [{"message": {"content": big}}], "output": big, "text": big}).encode())
    ask(reader, STREAMS["openai chat"].replace(b"llo", b"l" * 1_000_000))
    ask(reader, sse({"type": "content_block_delta", "delta": {"text": "x"}}) * 5_000)


@readers
def test_deep_nesting(reader):
    """Absurd nesting in a request or an answer is read or given up, without an error."""
    deep = {}
    for _ in range(20_000):
        deep = {"content": [deep]}
    for key in ("messages", "input", "contents", "prompt", "extra_body", "tools"):
        check_request(reader.request({key: [deep]}, own_path(reader)))
        check_request(reader.request({key: deep}, own_path(reader)))
    for opening in (b'{"usage":', b"[", b'{"output":[', b'{"message":{"content":['):
        ask(reader, opening * 20_000)
        ask(reader, b"data: " + opening * 20_000 + b"\n\n")


@readers
@often
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=30)), st.text(max_size=30))
def test_any_headers(reader, headers, value):
    """Headers may say anything."""
    for answer in WHOLE.values():
        facts = reader.response(answer)
        reader.take_headers(facts, headers | dict.fromkeys(reader.header_names, value))
        check(facts)


@pytest.mark.parametrize("fetch", FETCHES, ids=lambda fetch: fetch.path)
def test_fetched_answers(fetch):
    """Whatever is fetched is read, or is no answer; each of several is looked at by itself."""
    for received in EVERYTHING.values():
        for cut in (*range(0, len(received), 29), len(received)):
            for facts in fetch.read(received[:cut]):
                check(facts)
    for new in WRONG:
        for answer in ANSWERS.values():
            for path in paths_in(answer):
                for facts in fetch.read(json.dumps(replaced(answer, path, new)).encode()):
                    check(facts)


@pytest.mark.parametrize("fetch", FETCHES, ids=lambda fetch: fetch.path)
@often
@given(JSON)
def test_fetched_json(fetch, value):
    """Any JSON may be fetched."""
    keys = ("usage", "output", "metrics", "response", "usageMetadata", "status", "result", "id", "results")
    for body in (
        value,
        dict.fromkeys(keys, value),
        {"status": "completed", "id": "x", "created_at": 1, "usage": value},
    ):
        received = json.dumps(body).encode()
        for facts in (*fetch.read(received), *fetch.read(received + b"\n" + received)):
            check(facts)


# ---- requests


@readers
@often
@given(BODIES, st.integers(1, 5_000), st.data())
def test_any_request(reader, body, tokens, data):
    """Any request is read, bounded or said to be unbounded; a limit never raises what it asked for."""
    path = data.draw(st.sampled_from(list(paths_of(reader))))
    facts = reader.request(body, path)
    check_request(facts)
    changes = reader.with_output_limit(body, tokens)
    limited = reader.request({**body, **changes}, path)
    check_request(limited)
    if facts.limitable:
        most = max(tokens, FEWEST) if facts.max_output_tokens is None else facts.max_output_tokens
        assert limited.max_output_tokens is None or limited.max_output_tokens <= most
    asked = reader.with_usage_asked(body)
    assert asked is None or reader.with_usage_asked({**body, **asked}) is None


@readers
@pytest.mark.parametrize("tokens", [FEWEST, 700])
def test_a_limit_is_in_force(reader, tokens):
    """Where a reader says that a request can be limited, it can: the limit is what it reads as the maximum then."""
    for path in paths_of(reader):
        for body in ({}, {"model": "m"}, {"model": "m", "messages": [], "contents": [], "input": "x", "prompt": "x"}):
            facts = reader.request(body, path)
            if not facts.limitable:
                continue
            limited = reader.request({**body, **reader.with_output_limit(body, tokens)}, path)
            most = tokens if facts.max_output_tokens is None else min(tokens, facts.max_output_tokens)
            assert limited.max_output_tokens == most
            again = {**body, **reader.with_output_limit(body, tokens)}
            assert reader.request({**again, **reader.with_output_limit(again, 5_000)}, path).max_output_tokens == most


@readers
@often
@given(BODIES, st.sampled_from(["input", "messages", "prompt", "contents"]), st.text(max_size=99), st.text(max_size=99))
def test_a_longer_text_has_no_smaller_bound(reader, body, key, text, more):
    """What is added to a text never makes the bound of its request smaller."""
    path = own_path(reader)
    shorter, longer = (reader.request(body | {key: [value]}, path) for value in (f"x{text}", f"x{text}{more}"))
    assert longer.input_tokens_bound >= shorter.input_tokens_bound


@readers
def test_objects_of_an_sdk_in_a_request(reader):
    """Arguments of an SDK may be anything: iterators, classes, sentinels, open files."""

    class NotGiven:
        pass

    for value in (NotGiven(), NotGiven, iter([1]), object(), {1, 2}, b"bytes", bytearray(b"b"), (1, "a"), print):
        for key in FIELDS:
            for body in ({key: value}, {key: [value]}, {key: {"content": value, "type": value, "maxTokens": value}}):
                check_request(reader.request(body, own_path(reader)))
                reader.with_output_limit(body, 100)
                reader.with_usage_asked(body)


@readers
def test_its_paths_lead_to_it(reader):
    """The ends of a reader's paths lead to it, but for those that another vendor before it in the table has as well."""
    for suffix in reader.path_suffixes:
        found = reader_for_path(f"/v1{reader.path_part or '/'}x{suffix}")
        assert found is reader or suffix in found.path_suffixes, f"{suffix} leads to {found.name}"
