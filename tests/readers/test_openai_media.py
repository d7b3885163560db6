"""OpenAI's images, audio and videos. Wire format: OpenAI's API reference, "Images", "Audio" and "Videos"."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tollspan.instrumentation._readers import FETCHES, ResponseFacts
from tollspan.instrumentation._readers._openai._audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTIONS
from tollspan.instrumentation._readers._openai._images import OPENAI_IMAGES
from tollspan.instrumentation._readers._openai._videos import OPENAI_VIDEOS, VIDEO_FETCHES

ALL = [OPENAI_IMAGES, OPENAI_SPEECH, OPENAI_TRANSCRIPTIONS, OPENAI_VIDEOS]
readers = pytest.mark.parametrize("reader", ALL, ids=lambda reader: reader.name)
DRAWN = {
    "input_tokens": 70,
    "input_tokens_details": {"image_tokens": 20, "text_tokens": 50},
    "output_tokens": 272,
    "total_tokens": 342,
}
HEARD = {"type": "tokens", "input_tokens": 14, "input_token_details": {"audio_tokens": 10}, "output_tokens": 5}
VIDEO = {"id": "video_1", "object": "video", "created_at": 17, "model": "sora-2", "seconds": "8", "size": "720x1280"}


def answered(reader, answer):
    """The facts of an answer in JSON."""
    return reader.response(json.dumps(answer).encode())


def streamed(*events):
    """A stream of these events."""
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)


def used(reader, asked, answer):
    """What a call has used by its request and its answer together."""
    return reader.request(asked).usage_of(answered(reader, answer))


def test_image_tokens_are_parts_of_the_totals():
    """Where an answer tells tokens, these are what is billed: those of images in them, in both directions."""
    told = DRAWN | {"output_tokens_details": {"image_tokens": 260, "text_tokens": 12}}
    assert answered(OPENAI_IMAGES, {"data": [{}], "usage": told}).usage == {
        "tokens_in": 70,
        "tokens_image_in": 20,
        "tokens_out": 272,
        "tokens_image_out": 260,
    }


def test_without_details_all_output_is_an_image():
    """Older answers, and the events of streams, give no details: these models give nothing but images."""
    assert answered(OPENAI_IMAGES, {"data": [{}], "usage": DRAWN}).usage["tokens_image_out"] == 272


def test_cached_input_is_told_apart():
    """Input that was read from a cache is a part of the input, and images in it a part of that."""
    cached = {"cached_tokens": 30, "cached_tokens_details": {"cached_image_tokens": 8, "cached_text_tokens": 22}}
    usage = answered(OPENAI_IMAGES, {"data": [{}], "usage": DRAWN | cached}).usage
    assert (usage["tokens_cache_read"], usage["tokens_image_cache_read"]) == (30, 8)


@pytest.mark.parametrize(
    ("asked", "answer", "detail"),
    [
        ({"size": "1024x1024", "quality": "hd"}, {}, "images:1024x1024:hd"),
        ({"size": "auto", "quality": "auto"}, {"size": "1536x1024", "quality": "low"}, "images:1536x1024:low"),
        ({"size": "512x512"}, {}, "images:512x512"),
        ({"quality": "high"}, {}, "images:high"),
        ({"size": "auto", "quality": "auto"}, {}, "images"),
        ({}, {}, "images"),
    ],
)
def test_images_are_counted_by_what_sets_their_price(asked, answer, detail):
    """Size and quality come from the answer, or else from the request; what nobody tells is left out."""
    assert used(OPENAI_IMAGES, asked, {"data": [{}, {}, {}], **answer}) == {"images": 3, detail: 3}


def test_an_answer_without_images_tells_nothing():
    """Unknown is None."""
    assert answered(OPENAI_IMAGES, {"created": 1}).usage is None
    assert answered(OPENAI_IMAGES, {"data": []}).usage is None


def test_the_author_of_a_drawing_is_another_model():
    """An SVG is written by a text model after the image; its tokens are billed at its own price."""
    svg = {"model": "gpt-6-luna", "input_tokens": 900, "output_tokens": 400, "reasoning_tokens": 100}
    facts = answered(OPENAI_IMAGES, {"data": [{}], "usage": DRAWN, "svg_usage": svg})
    assert facts.others == (("gpt-6-luna", {"tokens_in": 900, "tokens_out": 400, "tokens_reasoning": 100}),)
    assert facts.usage["tokens_in"] == 70


@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
def test_each_image_of_a_stream_counts(kind):
    """Pieces of an image tell nothing, each whole one what it has used, and without one nothing is complete."""
    piece = {"type": f"{kind}.partial_image", "b64_json": "aGk=", "partial_image_index": 0}
    image = {"type": f"{kind}.completed", "b64_json": "aGk=", "size": "1024x1024", "usage": DRAWN}
    assert OPENAI_IMAGES.stream(streamed(piece, image, piece, image)).usage["tokens_out"] == 544
    begun = OPENAI_IMAGES.stream(streamed(piece, piece))
    assert (begun.usage, begun.complete) == (None, False)
    assert OPENAI_IMAGES.is_complete(streamed(piece, image))
    assert not OPENAI_IMAGES.is_complete(streamed(piece))


def test_an_image_stream_of_a_model_without_tokens_counts_images():
    """Where an event tells no tokens, it still is an image."""
    image = {"type": "image_generation.completed", "b64_json": "aGk=", "size": "1024x1024", "quality": "high"}
    assert OPENAI_IMAGES.stream(streamed(image, image)).usage == {"images": 2, "images:1024x1024:high": 2}


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"text": "x", "usage": HEARD}, {"tokens_in": 14, "tokens_out": 5, "tokens_audio_in": 10}),
        ({"text": "x", "usage": {"type": "duration", "seconds": 3}}, {"audio_seconds": 3.0}),
        ({"text": "x", "duration": 2.5, "usage": {"type": "duration", "seconds": 3}}, {"audio_seconds": 3.0}),
        ({"text": "x", "duration": 2.5}, {"audio_seconds": 2.5}),
        ({"text": "x", "duration": -1}, None),
        ({"text": "x", "duration": True}, None),
        ({"text": "x"}, None),
    ],
)
def test_a_transcription_is_billed_by_tokens_or_by_seconds(answer, usage):
    """The billed seconds go before the measured ones; what is no time is none."""
    assert answered(OPENAI_TRANSCRIPTIONS, answer).usage == usage


@pytest.mark.parametrize("text", [b"The Danube", b"1\n00:00:00,000 --> 00:00:02,500\nx\n", b"WEBVTT\n\nx", b""])
def test_a_transcription_as_text_tells_nothing(text):
    """Its usage is unknown, and it is no error."""
    facts = OPENAI_TRANSCRIPTIONS.response(text)
    assert (facts.usage, facts.error_type) == (None, None)


def test_the_last_event_of_a_transcription_tells_its_usage():
    """A stream is complete with it, and has no usage before."""
    piece, last = {"type": "transcript.text.delta", "delta": "x"}, {"type": "transcript.text.done", "usage": HEARD}
    whole = OPENAI_TRANSCRIPTIONS.stream(streamed(piece, last))
    assert (whole.complete, whole.usage["tokens_audio_in"]) == (True, 10)
    cut = OPENAI_TRANSCRIPTIONS.stream(streamed(piece))
    assert (cut.complete, cut.usage) == (False, None)


def test_speech_is_billed_by_the_characters_of_its_text():
    """Characters, not bytes; sound tells nothing of its own."""
    request = OPENAI_SPEECH.request({"model": "tts-1", "input": "flöws", "voice": "alloy"})
    assert request.usage_of(OPENAI_SPEECH.response(b"ID3\0\1\2")) == {"characters_in": 5}
    assert request.stream is False


def test_what_an_error_or_an_event_says_of_speech_goes_before():
    """An error has used nothing, and events tell tokens."""
    request = OPENAI_SPEECH.request({"model": "m", "input": "hello", "stream_format": "sse"})
    assert request.stream is True
    assert request.usage_of(answered(OPENAI_SPEECH, {"error": {"type": "x", "message": "no"}})) is None
    last = {"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 9}}
    assert request.usage_of(OPENAI_SPEECH.stream(streamed(last))) == {"tokens_in": 3, "tokens_out": 9}


@pytest.mark.parametrize(
    ("status", "usage"),
    [
        ("queued", None),
        ("in_progress", None),
        ("completed", {"video_seconds": 8, "video_seconds:720x1280": 8}),
        ("failed", {"video_seconds": 0}),
    ],
)
def test_a_video_is_billed_when_it_is_ready(status, usage):
    """Until then its usage is unknown; a job that failed has used nothing."""
    facts = answered(OPENAI_VIDEOS, VIDEO | {"status": status})
    assert (facts.usage, facts.response_id, facts.created, facts.model) == (usage, "video_1", 17, "sora-2")


def test_a_poll_of_a_video_is_a_fetch_and_its_file_is_none():
    """Only the job itself tells its usage."""
    (fetch,) = VIDEO_FETCHES
    assert fetch in FETCHES
    assert re.fullmatch(fetch.path, "/v1/videos/video_1")
    assert not re.fullmatch(fetch.path, "/v1/videos/video_1/content")
    assert not re.fullmatch(fetch.path, "/v1/videos/characters/c")
    assert not list(fetch.read(b'{"object": "list", "data": []}'))
    assert [facts.usage for facts in fetch.read(json.dumps(VIDEO | {"status": "completed"}).encode())] == [
        {"video_seconds": 8, "video_seconds:720x1280": 8}
    ]


@readers
def test_no_request_is_bounded(reader):
    """Nothing in these requests bounds what is billed in tokens, and the reason says of what."""
    facts = reader.request({"model": "m", "prompt": "a river", "input": "a river"})
    assert facts.unbounded
    assert not facts.priced
    assert not facts.limitable
    assert reader.with_output_limit({"model": "m"}, 5) == {}
    assert reader.with_usage_asked({"model": "m", "stream": True}) is None


# The first text that Hypothesis makes takes seconds.
often = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)
KEYS = [
    *("usage", "data", "size", "quality", "svg_usage", "duration", "status", "seconds", "error", "type", "model"),
    *("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details", "stream", "stream_format"),
    *("input", "prompt", "n"),
]


@readers
@often
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3)
)
def test_any_json_is_harmless(reader, answer, usage):
    """Any JSON where the readers look is read without an exception, and no count is made up."""
    for value in (answer, {"usage": usage, "data": [answer]}, {"type": "image_edit.completed", "usage": usage}):
        body = json.dumps(value).encode()
        for facts in (reader.response(body), reader.stream(b"data: " + body + b"\n\n")):
            assert isinstance(facts, ResponseFacts)
            usage_of_both = reader.request(answer).usage_of(facts) or {}
            assert all(count >= 0 for count in usage_of_both.values())
        assert reader.is_complete(body) in (True, False)


@readers
@often
@given(st.binary(max_size=200))
def test_garbage_is_harmless(reader, junk):
    """Bytes of any kind are read without an exception, and tell no usage."""
    assert reader.response(junk).usage is None
    assert reader.stream(b"data: " + junk + b"\n\n").usage is None
