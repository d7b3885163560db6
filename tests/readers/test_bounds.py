"""The bound on a request's input tokens, its effective body, and the size of its media."""

import base64
import dataclasses
import struct
import time
from collections import OrderedDict, deque
from types import MappingProxyType

import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.instrumentation._readers import READERS
from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _inline as inline

CHAT, RESPONSES, MESSAGES = READERS[:3]

TEXTS = st.text(max_size=60)
BODIES = st.recursive(
    TEXTS | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def png(width, height):
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x06\0\0\0" + bytes(40)


def gif(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(60)


def jpeg(width, height, *, exif=70_000):
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 60_002) + bytes(60_000) for _ in range(exif // 60_000))
    frame = b"\xff\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + bytes(20)
    return b"\xff\xd8" + segments + b"\xff\xdb\x00\x03\x00" + frame


def webp(kind, width, height):
    first = {
        b"VP8X": bytes(4) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3],
        b"VP8L": b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14),
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height),
    }[kind]
    return b"RIFF" + bytes(4) + b"WEBP" + kind + bytes(4) + first + bytes(30)


def data_url(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_part(data, **more):
    return {"type": "image_url", "image_url": {"url": data_url(data), **more}}


def chat_bound(*parts, model="gpt-4o", **body):
    return CHAT.request({"model": model, "messages": [{"role": "user", "content": list(parts)}], **body})


def strings_in(value):
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (*strings_in(k), *strings_in(v))]
    return [s for item in value for s in strings_in(item)] if isinstance(value, list) else []


@given(st.lists(BODIES, max_size=4), st.dictionaries(TEXTS, BODIES, max_size=3))
def test_no_byte_of_text_is_missed(messages, body):
    """The bound is at least the UTF-8 bytes of every string in the request, keys included."""
    request = {**body, "messages": messages, "input": messages}
    smallest = sum(len(s.encode()) for s in strings_in({k: v for k, v in request.items() if k != "timeout"}))
    for reader in READERS[:3]:
        facts = reader.request(request)
        assert facts.input_tokens_bound >= smallest or facts.unbounded is not None


@given(st.lists(BODIES, min_size=1, max_size=4), BODIES)
def test_more_is_never_less(messages, more):
    """A request that has a message more has no lower bound."""
    for reader, key in ((CHAT, "messages"), (RESPONSES, "input"), (MESSAGES, "messages")):
        fewer, all_of_them = reader.request({key: messages}), reader.request({key: [*messages, more]})
        assert all_of_them.input_tokens_bound >= fewer.input_tokens_bound
        assert fewer.unbounded is None or all_of_them.unbounded is not None


def test_the_bound_of_a_small_request():
    """Strings, keys, 64 for the request and 16 for each message; 512 more where there are tools."""
    messages = [{"role": "user", "content": "hello"}]
    plain = CHAT.request({"messages": messages}).input_tokens_bound
    assert 64 + 16 + len("roleusercontenthello") < plain < 200
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert CHAT.request({"messages": messages, "tools": tools}).input_tokens_bound > plain + 512
    assert CHAT.request({"messages": messages * 2}).input_tokens_bound > plain + 16


@pytest.mark.parametrize("reader", READERS[:3])
def test_iterators_are_left_alone(reader):
    """Messages from a generator are not consumed; the request has no bound, and says why."""
    key = "input" if reader is RESPONSES else "messages"
    messages = ({"role": "user", "content": "x"} for _ in range(2))
    assert reader.request({key: messages}).unbounded == f"{key} given as an iterator"
    assert len(list(messages)) == 2


def test_iterators_inside_are_left_alone():
    """Content from a generator is not consumed either."""
    content = iter([{"type": "text", "text": "x"}])
    assert CHAT.request({"messages": [{"content": content}]}).unbounded == "content given as an iterator"
    assert len(list(content)) == 1


class Answer(pydantic.BaseModel):
    """What the model shall answer."""

    model_config = pydantic.ConfigDict(extra="allow")
    text: str = pydantic.Field(description="d" * 500)


class Unprintable:
    """A class whose schema cannot be made."""

    @classmethod
    def model_json_schema(cls):
        raise RuntimeError("no schema")


@dataclasses.dataclass
class Note:
    """A data class among the messages."""

    text: str


@pytest.mark.parametrize("keyword", ["response_format", "text_format", "output_format"])
@pytest.mark.parametrize("reader", READERS[:3])
def test_a_class_counts_with_its_schema(reader, keyword):
    """A pydantic class as the format of the answer counts its JSON schema."""
    facts = reader.request({"messages": [], "input": "x", keyword: Answer})
    assert facts.unbounded is None
    assert facts.input_tokens_bound > 500


def test_a_class_without_a_schema_has_no_bound():
    """Where no schema can be made, the request says that it has no bound."""
    assert CHAT.request({"messages": [], "response_format": Unprintable}).unbounded == "a class without a JSON schema"
    assert CHAT.request({"messages": [], "response_format": int}).unbounded == "a class without a JSON schema"


@pytest.mark.parametrize(
    "value",
    [
        Answer(text="x" * 500, more="y" * 500),
        Note("x" * 1000),
        OrderedDict(text="x" * 1000),
        MappingProxyType({"text": "x" * 1000}),
        deque(["x" * 1000]),
        ("x" * 1000,),
        {"x" * 1000},
        type("Text", (str,), {})("x" * 1000),
        b"x" * 1000,
        10**1000,
    ],
)
def test_unusual_values_are_walked(value):
    """Models, data classes, mappings, collections and subclasses count with all that is in them."""
    facts = CHAT.request({"messages": [{"role": "user", "content": value}]})
    assert facts.unbounded is None
    assert facts.input_tokens_bound >= 1000


def test_what_cannot_be_measured_has_no_bound():
    """An object of no known kind makes the request unbounded, by its type's name only."""
    assert CHAT.request({"messages": [{"content": object()}]}).unbounded == "content given as object"


def test_cycles_end():
    """A body that contains itself is not walked for ever."""
    loop = []
    loop += [loop] * 1000
    assert CHAT.request({"messages": loop}).unbounded == "a body without an end"


def test_extra_body_wins_and_sentinels_are_absent():
    """The effective body is what the SDK would send: extra_body over keywords, nothing for omitted arguments."""
    facts = CHAT.request(
        {
            "model": "gpt-4o",
            "messages": [],
            "max_tokens": 5,
            "temperature": openai.omit,
            "seed": openai.NOT_GIVEN,
            "stream": True,
            "extra_headers": {"x": "y" * 1000},
            "timeout": 3,
            "extra_body": {"model": "gpt-5", "max_tokens": 7, "stream": False, "n": 3},
        }
    )
    assert (facts.model, facts.max_output_tokens, facts.stream, facts.choices) == ("gpt-5", 7, False, 3)
    assert facts.attributes == {"gen_ai.request.max_tokens": 7, "gen_ai.request.choice.count": 3}
    assert facts.input_tokens_bound < 300


def test_placed_changes_stand_where_they_count():
    """A change goes into a copy of extra_body where the key stands there, and beside it where it does not."""
    arguments = {"a": 1, "extra_body": {"b": 2, "c": 3}}
    assert bounds.placed(arguments, {"b": 9, "a": 8}) == {"a": 8, "extra_body": {"b": 9, "c": 3}}
    assert bounds.placed(arguments, {"a": 8}) == {"a": 8}
    assert arguments == {"a": 1, "extra_body": {"b": 2, "c": 3}}


@pytest.mark.parametrize(
    "make", [png, gif, jpeg, *(lambda w, h, k=kind: webp(k, w, h) for kind in (b"VP8X", b"VP8L", b"VP8 "))]
)
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (1001, 3)])
def test_image_sizes_are_read_from_headers(make, size):
    """Width and height come from the header, with or without a data URL around the base64."""
    data = make(*size)
    assert inline.pixels(data_url(data)) == size
    assert inline.pixels(base64.b64encode(data).decode()) == size


@given(st.binary(max_size=200))
def test_damaged_headers_are_harmless(junk):
    """A header cut or damaged anywhere gives a size or None."""
    for start in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8 ", b"GIF89a"):
        size = inline.pixels(base64.b64encode(start + junk).decode())
        assert size is None or len(size) == 2


@pytest.mark.parametrize(
    ("model", "size", "least", "most"),
    [
        ("gpt-4o-mini", (1, 1), 8_500, 8_500),
        ("gpt-4o-mini-2024-07-18", (4000, 3000), 2_833 + 5_667 * 4, 48_169),
        ("gpt-4o", (3008, 2000), 1_105, 1_445),
        ("openai/gpt-4.1", (100, 4000), 255, 1_445),
        ("gpt-4.1-nano", (4000, 4000), 3_779, 3_779),
        ("gpt-6-astra", (4032, 3024), 14_364, 29_500),
        ("gpt-6-astra", (256, 256), 77, 700),
        ("google/gemini-3-pro", (256, 256), 1_120, 9_000),
        ("qwen-vl", (4000, 3200), 16_384, 40_000),
    ],
)
def test_images_are_bounded_by_their_size(model, size, least, most):
    """An image is bounded by the documented tile or patch rule of its model, tightly enough to be of use."""
    bare = chat_bound(model=model).input_tokens_bound
    tokens = chat_bound(image_part(png(*size), detail="high"), model=model).input_tokens_bound - bare
    assert least <= tokens <= most + 100


def test_what_is_no_image_counts_its_bytes():
    """Base64 without an image's header counts all of its bytes, so that no text hides in an image part."""
    facts = chat_bound({"type": "image_url", "image_url": {"url": "data:text/plain;base64," + "A" * 100_000}})
    assert facts.input_tokens_bound >= 100_000


def test_files_and_audio_are_bounded_by_their_bytes():
    """A file counts its decoded bytes and 8,192; audio a hundredth of them and 500."""
    bare = chat_bound().input_tokens_bound
    file = {"type": "file", "file": {"file_data": data_url(bytes(30_000), "application/pdf"), "filename": "a.pdf"}}
    assert 38_192 <= chat_bound(file).input_tokens_bound - bare <= 38_400
    audio = {"type": "input_audio", "input_audio": {"data": base64.b64encode(bytes(50_000)).decode(), "format": "mp3"}}
    assert 1_000 <= chat_bound(audio).input_tokens_bound - bare <= 1_200


def test_a_stripped_part_keeps_its_text():
    """What stands beside the media in a part is still counted."""
    part = image_part(png(10, 10), detail="x" * 5_000)
    assert chat_bound(part).input_tokens_bound > 5_000


def test_large_strings_are_not_slow():
    """A text of 100 KB in any alphabet, or an image of 4 MB, takes well under a few milliseconds."""
    requests = [
        [{"content": "x" * 100_000}],
        [{"content": "字" * 33_000}],
        [{"content": [image_part(png(9, 9) + bytes(3 << 20))]}],
    ]
    started = time.process_time()
    for messages in requests:
        CHAT.request({"messages": messages})
    assert time.process_time() - started < 0.05
