"""Server-sent events, JSON and errors as the readers take them from the wire."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.instrumentation._readers import _sse as sse

EVENTS = [{"n": 1, "text": "a\n\nb"}, {"n": 2, "text": "héllo 字 \U0001f600"}, {"n": 3, "usage": {"x": 1}}]


def framed(events, *, end="\n", prefix="data: "):
    return "".join(f"{prefix}{json.dumps(event, ensure_ascii=False)}{end}{end}" for event in events).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("prefix", ["data: ", "data:", "event: x\ndata: ", ": comment\n\ndata: ", "id: 7\ndata:"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_framing_does_not_change_what_is_read(end, prefix, start):
    """Line ends, a byte order mark, comments, other fields and the space after the colon make no difference."""
    received = start + framed(EVENTS, end=end, prefix=prefix.replace("\n", end))
    assert list(sse.events(sse.normal(received))) == EVENTS


def test_several_data_lines_are_one_event():
    """The data lines of one event are joined by line feeds."""
    assert list(sse.events(b'data: {"n":\ndata: 1}\n\ndata: [DONE]\n\n')) == [{"n": 1}]


@pytest.mark.parametrize("cut", range(len(framed(EVENTS)) + 1))
def test_a_torn_event_is_left_out(cut):
    """However a stream is cut, the whole events before the cut are read, and nothing else."""
    read = list(sse.events(sse.normal(framed(EVENTS)[:cut])))
    assert read == EVENTS[: len(read)]


def test_only_events_with_the_needle_are_read_from_the_end():
    """Looking from the end gives the newest event first, and leaves out events without the needle."""
    stream = framed([{"usage": 1}, {"other": 2}, {"usage": 3}])
    assert list(sse.newest(stream, b'"usage"')) == [{"usage": 3}, {"usage": 1}]
    assert list(sse.oldest(stream, b'"usage"')) == [{"usage": 1}, {"usage": 3}]
    assert list(sse.newest(stream, b'"usage"', start=-20)) == [{"usage": 3}]


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), min_size=1), max_size=6),
    st.binary(max_size=4).filter(lambda needle: b"\n" not in needle),
)
def test_looking_from_both_ends_finds_the_same(events, needle):
    """From the front and from the end, the same events are found, in opposite orders."""
    stream = framed(events)
    found = list(sse.oldest(stream, needle or b"{"))
    assert found == list(sse.newest(stream, needle or b"{"))[::-1]
    assert all(event in events for event in found)


@pytest.mark.parametrize(
    ("tail", "done"),
    [
        (b"data: [DONE]\n\n", True),
        (b"data:[DONE]", True),
        (b"data: {}\n\ndata: [DONE]\n\n: bye\n\n", True),
        (b'data: {"content":"data: [DONE]"}\n\n', False),
        (b"data: [DON", False),
        (b"", False),
    ],
)
def test_the_done_line_is_told_from_text(tail, done):
    """Only a data line of its own ends a stream."""
    assert sse.is_done(tail) is done


@pytest.mark.parametrize(("value", "read"), [(0, 0), (7, 7), (12.0, 12), (2**53, 2**53)])
def test_counts_are_read(value, read):
    """Whole numbers are counts, zero included."""
    assert sse.count(value) == read


@pytest.mark.parametrize(
    "value", [None, "7", True, False, -1, 1.5, float("nan"), float("inf"), 10**30, 1e300, [], {}, b"7"]
)
def test_what_is_no_count_is_unknown(value):
    """A wrong type, a negative or an absurd number is unknown, never 0."""
    assert sse.count(value) is None


@pytest.mark.parametrize(
    "body", [b"", b"garbage", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 5_000, b"1" * 10_000, b"[]"]
)
def test_what_is_no_json_object_is_empty(body):
    """Garbage, wrong encodings and absurd nesting give an empty answer."""
    assert sse.parsed_object(body) == {}


def test_python_only_json_is_read():
    """NaN, lone surrogates and lists around an object are read as Python's parser reads them."""
    assert sse.parsed_object(b'{"logprob": NaN, "n": 1}')["n"] == 1
    assert sse.spoken_bytes(sse.parsed_object(b'{"text": "\\ud83d"}')["text"]) == 3
    assert sse.parsed_object(b'[{"error": {"code": 400}}]') == {"error": {"code": 400}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": {"type": "t", "code": "c", "message": "m"}}, ("t", "m")),
        ({"error": {"code": 429, "message": "m"}}, ("429", "m")),
        ({"error": "model not found"}, ("_OTHER", "model not found")),
        ({"type": "error", "code": "server_error", "message": "m"}, ("server_error", "m")),
        ({"object": "error", "type": "BadRequestError", "message": "m"}, ("BadRequestError", "m")),
        ({"statusCode": 401, "message": "m"}, ("401", "m")),
        ({"detail": "Not Found"}, ("_OTHER", "Not Found")),
        ({"id": "x", "error": None, "message": "no error"}, (None, None)),
        ({"error": {"type": ["odd"], "message": {"odd": 1}}}, ("_OTHER", None)),
    ],
)
def test_errors_are_read_in_all_their_shapes(answer, expected):
    """Type and message are found wherever compatible servers put them."""
    assert sse.failure(sse.error_in(answer)) == expected


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcDEF123",
        "sk-ant-api03-x",
        "AIzaSyD-1234567890abc",
        "abc123def456ghi789jkl0",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0",
        "A" * 40,
    ],
)
def test_keys_never_stand_in_a_message(key):
    """What looks like a key is taken out, and what does not stays."""
    message = sse.redacted(
        f"Incorrect API key provided: {key} for model claude-3-5-sonnet-20241022 (max_output_tokens)"
    )
    assert key not in message
    assert "claude-3-5-sonnet-20241022 (max_output_tokens)" in message


def test_a_key_is_taken_out_before_the_message_is_cut():
    """A key at the place of the cut leaves no part of it, and a message has at most 200 characters."""
    message = sse.redacted("x" * 190 + " sk-abcdefghijklmnop1234567890 " + "y " * 5_000)
    assert "sk-abc" not in message
    assert len(message) <= sse.MESSAGE_CHARS
