"""The byte tap: what it hides and what it hands on, what it keeps, and how it ends."""

import gc
import gzip
import json
import threading
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_calls import (
    FLAVOURS,
    KINDS,
    anthropic,
    canned,
    create,
    drive,
    library_of,
    listed,
    make_client,
    mocked,
    openai,
    resolved,
)

from tollspan.exporter import pipeline
from tollspan.instrumentation._tap import AsyncTap, HideUsage, Sink, Tap, decoded, tap_class

TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ['"choices":[]', ',"usage":null', '"usage": null, ', 'data: {"choices":[],"usage":{}}\n\n', "\r\n\r\n"]
    ),
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
AZURE = {"id": "", "choices": [], "prompt_filter_results": [{"content_filter_results": {}}]}
EMPTY = b""


@st.composite
def streams(draw):
    """A chat stream as a server sends it with include_usage, in pieces, and its chunks as they would be without."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    end = draw(st.sampled_from(["\n\n", "\r\n\r\n"]))
    texts = draw(st.lists(TEXTS, min_size=1, max_size=5))
    bare = [AZURE] * draw(st.booleans()) + [
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]} for text in texts
    ]
    nulls, first = draw(st.booleans()), draw(st.booleans())
    null = {"usage": None} if nulls else {}
    sent = [{**null, **chunk} if first else {**chunk, **null} for chunk in bare]
    sent.append({"id": "c", "model": "m", "choices": [], "usage": USAGE})
    ascii_only = draw(st.booleans())
    lines = [json.dumps(chunk, separators=separators, ensure_ascii=ascii_only) for chunk in sent]
    data = "".join(f"data: {line}{end}" for line in [*lines, "[DONE]"]).encode("utf-8", "surrogatepass")
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)], bare


@settings(max_examples=400, deadline=None)
@given(streams())
def test_hiding_leaves_the_stream_that_was_asked_for(case):
    """Whatever the spacing, the line ends and the pieces: exactly the usage chunk and the null usages are gone."""
    pieces, bare = case
    hide = HideUsage()
    shown = [hide(piece) for piece in pieces]
    assert all(piece == b"" or piece.endswith(b"\n") for piece in shown)
    lines = [line for line in (b"".join(shown) + hide.rest()).splitlines(keepends=False) if line.startswith(b"data: ")]
    *events, done = [line.removeprefix(b"data: ") for line in lines]
    assert done == b"[DONE]"
    assert [json.loads(event) for event in events] == bare


@given(st.binary(max_size=200), st.integers(0, 200))
def test_hiding_passes_what_it_does_not_know(data, cut):
    """Bytes that hold no usage come through as they are, to the last one."""
    hide = HideUsage()
    assert hide(data[:cut]) + hide(data[cut:]) + hide.rest() == data


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
@pytest.mark.parametrize("flavour", FLAVOURS)
@KINDS
def test_compressed_streams_are_counted(provider, seen, *, flavour, encoding, asynchronous):
    """A stream that comes compressed is read by the SDK as ever, and its usage is counted."""
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding]

    def answer(request):
        whole = canned(request)
        packed = pack(whole["content"])
        pieces = [packed[start : start + 37] for start in range(0, len(packed), 37)]
        headers = {**whole["headers"], "content-encoding": encoding}
        return {**whole, "headers": headers, "content": _slowly(pieces) if asynchronous else iter(pieces)}

    async def work():
        http_client = mocked(FLAVOURS[flavour], answer, asynchronous=asynchronous)
        client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous, http_client=http_client)
        found = await listed(await resolved(create(client, flavour, stream=True)))
        await resolved(client.close())
        return found

    assert len(drive(work(), asynchronous=asynchronous)) > 4
    assert (seen.end.usage, seen.end.estimated) == ({"tokens_in": 20, "tokens_out": 10}, False)


async def _slowly(pieces):
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_cut_compressed_stream_is_read_as_far_as_it_goes(encoding):
    """Of compressed bytes that end too early, all that can be told is told; what is damaged is given as it is."""
    text = b"data: {}\n\n" * 1000
    packed = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    assert decoded(packed, encoding) == text
    assert text.startswith(decoded(packed[: len(packed) // 2], encoding))
    assert decoded(b"not compressed", encoding) == decoded(b"not compressed", "unheard-of") == b"not compressed"


def test_a_very_long_stream_keeps_its_head_and_its_tail():
    """Of a stream without an end the first and the last chunks are kept, so what is kept has a bound."""
    sink, most = Sink(lambda _error, _left: None, lambda: None), 0
    for number in range(100_000):
        sink.take(b"%06d " % number)
        most = max(most, len(sink.chunks))
    assert sink.received.startswith(b"000000 000001 ")
    assert sink.received.endswith(b" 099998 099999 ")
    assert most < 25_000


def test_a_very_long_stream_is_counted(provider, seen):
    """The usage at the end of a stream of very many chunks is read, and the stream is passed on whole."""

    def answer(request):
        whole = canned(request)
        head, _, tail = whole["content"].partition(b"\n\n")
        return {**whole, "content": iter([head + b"\n\n", *[b": ping\n\n"] * 21_000, tail])}

    with make_client(provider, "openai", http_client=mocked("openai", answer, asynchronous=False)) as client:
        assert len(list(create(client, "chat", stream=True))) == 6
    assert seen.end.usage == {"tokens_in": 20, "tokens_out": 10}


@given(st.lists(st.sampled_from(["end", "left", "error", "abandon"]), min_size=1, max_size=5))
def test_a_sink_ends_once(ends):
    """Of several ends the first one counts, and the others are not heard of."""
    heard = []
    sink = Sink(lambda error, left: heard.append(("end", type(error), left)), lambda: heard.append("abandon"))
    actions = {
        "end": sink.end,
        "left": lambda: sink.end(left=True),
        "error": lambda: sink.end(ValueError()),
        "abandon": sink.abandon,
    }
    for end in ends:
        actions[end]()
    nothing = type(None)
    first = {"end": ("end", nothing, False), "left": ("end", nothing, True), "error": ("end", ValueError, False)}
    assert heard == [first.get(ends[0], "abandon")]


def test_an_abandoned_stream_takes_no_lock(provider, seen):
    """The garbage collector may run in a thread that holds any lock: dropping a stream waits for none."""
    client = make_client(provider, "anthropic")
    stream = create(client, "messages", stream=True)
    writer, dropped = pipeline().ledger.writer, []

    def drop():
        nonlocal stream
        with writer._start_lock:
            stream = None
            gc.collect()
        dropped.append(True)

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(5)
    assert dropped
    client.close()
    assert (seen.end.status, seen.end.estimated) == ("cancelled", True)


@pytest.mark.parametrize("sdk", [openai, anthropic], ids=lambda sdk: sdk.__name__)
def test_taps_are_streams_of_the_http_library(sdk):
    """A tap is an instance of the HTTP library's stream classes, for which its clients check."""
    library = library_of(sdk.__name__)
    sink = Sink(lambda _error, _left: None, lambda: None)
    assert isinstance(tap_class(Tap, library.SyncByteStream)(iter([]), sink, None), library.SyncByteStream)
    assert isinstance(tap_class(AsyncTap, library.AsyncByteStream)(iter([]), sink, None), library.AsyncByteStream)


def test_a_tap_that_is_closed_closes_what_is_below():
    """Closing the iteration of an async tap closes the generator below at once, and not when the loop gets to it."""
    closed = []

    class Below:
        async def __aiter__(self):
            try:
                yield b"one"
                yield b"two"
            finally:
                closed.append(True)

    async def work():
        iteration = aiter(AsyncTap(Below(), Sink(lambda _error, _left: None, lambda: None), None))
        assert await anext(iteration) == b"one"
        await iteration.aclose()
        return list(closed)

    assert drive(work(), asynchronous=True) == [True]
