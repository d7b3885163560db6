"""What images, sounds, films and documents may be billed at the most, by the rules that vendors document."""

import base64
import io
import math
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.instrumentation._readers import READERS
from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _documents as documents
from tollspan.instrumentation._readers import _inline as inline

CHAT, RESPONSES, MESSAGES = READERS[:3]
SIDES = st.integers(1, 9_000)


def png(width, height):
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x06\0\0\0" + bytes(40)


def wav(rate, channels, seconds, *, kind=1):
    frame = channels * 2
    data = bytes(rate * frame * seconds)
    format_ = struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, 16)
    noted = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    return b"RIFF\0\0\0\0WAVE" + noted + b"fmt " + struct.pack("<I", 16) + format_ + b"data\0\0\0\0" + data


def flac(rate, samples):
    info = bytes(10) + (rate << 44 | samples).to_bytes(8, "big") + bytes(16)
    return b"fLaC\x80\0\0\x22" + info + bytes(1_000)


def box(kind, content, *, wide=False):
    if wide:
        return struct.pack(">I4sQ", 1, kind, len(content) + 16) + content
    return struct.pack(">I4s", len(content) + 8, kind) + content


def film(seconds, *, first=b"", wide=False, version=0):
    times = (
        struct.pack(">QQIQ", 0, 0, 600, seconds * 600) if version else struct.pack(">IIII", 0, 0, 600, seconds * 600)
    )
    header = box(b"moov", box(b"mvhd", bytes([version, 0, 0, 0]) + times + bytes(80)))
    return box(b"ftyp", b"isom") + first + box(b"mdat", bytes(300_000), wide=wide) + header


def stream(content, header=b"", *, packed=True):
    data = zlib.compress(content) if packed else content
    named = b"/Filter /FlateDecode " if packed else b""
    return b"<< %b%b/Length %d >>\nstream\n%b\nendstream" % (header, named, len(data), data)


def pdf(*pages, objects=b"", end=b"%%EOF\n"):
    listed = b"".join(b"%d 0 obj\n<< /Type /Page /Parent 2 0 R >>\nendobj\n" % (9 + at) for at in range(len(pages)))
    drawn = b"".join(b"99 0 obj\n%b\nendobj\n" % stream(page) for page in pages)
    return b"%PDF-1.7\n2 0 obj\n<< /Type /Pages /Count 1 >>\nendobj\n" + listed + drawn + objects + end


def encoded(data):
    return base64.b64encode(data).decode()


def shown(text):
    return b"BT /F1 12 Tf 72 700 Td (" + text + b") Tj ET"


# ---- where a file tells what it is


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 300))
def test_a_part_of_a_file_is_the_same_in_base64(data, start, size):
    """Any part is decoded by itself, with or without a `data:` URL, in either alphabet, or given as bytes."""
    part = data[start : start + size]
    url_safe = base64.urlsafe_b64encode(data).decode()
    for given_as in (data, encoded(data), f"data:image/png;base64,{encoded(data)}", url_safe):
        assert inline.content(given_as, start, size) == part
        assert inline.content(given_as) == data


@pytest.mark.parametrize("more", [{}, {"wide": True}, {"version": 1}, {"first": box(b"free", b"")}])
def test_a_film_tells_its_length_at_its_end(more):
    """The header is found behind the pictures as well, without decoding those."""
    whole = film(90, **more)
    assert inline.movie_seconds(encoded(whole)) == 90
    assert inline.movie_seconds(encoded(whole[:-150])) is None


@pytest.mark.parametrize("data", [b"", b"ftyp", box(b"free", b""), struct.pack(">I4sQ", 1, b"mdat", 3), bytes(500)])
def test_what_is_no_film_tells_nothing(data):
    """Boxes that do not add up, or none, give no length, and are not walked for ever."""
    assert inline.movie_seconds(encoded(data)) is None


@pytest.mark.parametrize(
    ("sound", "seconds"),
    [
        (wav(16_000, 1, 20), 20),
        (wav(44_100, 2, 3), 3),
        (flac(48_000, 48_000 * 70), 70),
        (b"ID3" + bytes(60_000), 60),
        (b"\xff\xfb\x90\x00" + bytes(60_000), 60),
        (wav(16_000, 1, 20, kind=0x31), 640_000 / 480),
        (bytes(48_000), 100),
    ],
    ids=["wav", "stereo", "flac", "mp3 with tags", "mp3", "compressed wav", "unknown"],
)
def test_a_sound_is_as_long_as_its_header_says(sound, seconds):
    """WAV and FLAC tell how long they are; of others, a second has no fewer bytes than their format allows."""
    for data in (sound, encoded(sound), f"data:audio/x;base64,{encoded(sound)}"):
        assert inline.audio_seconds(data) == pytest.approx(seconds, rel=0.01)
        assert inline.audio_seconds(data) >= seconds * 0.9999
    assert bounds.sound_tokens(sound, 32)[0] >= seconds * 32


@given(st.binary(max_size=120), st.sampled_from([b"RIFF....WAVE", b"fLaC", b"ID3", b"\xff\xfb", b"OggS", b""]))
def test_damaged_sounds_are_no_shorter_than_their_bytes_allow(junk, start):
    """A header that is cut or damaged gives a length that is no error, and never less than nothing."""
    assert inline.audio_seconds(encoded(start + junk)) >= 0
    assert inline.movie_seconds(encoded(start + junk)) is None or inline.movie_seconds(encoded(start + junk)) >= 0


# ---- images: OpenAI


def openai_bound(model, image, **more):
    """The bound of an image by itself, in Chat Completions and in the Responses API."""
    part = {"type": "image_url", "image_url": {"url": image, **more}}
    asked = {"model": model, "messages": [{"role": "user", "content": [part]}]}
    bare = {"model": model, "messages": [{"role": "user", "content": []}]}
    in_chat = CHAT.request(asked).input_tokens_bound - CHAT.request(bare).input_tokens_bound
    part = {"type": "input_image", "image_url": image, **more}
    asked = {"model": model, "input": [{"role": "user", "content": [part]}]}
    bare = {"model": model, "input": [{"role": "user", "content": []}]}
    in_responses = RESPONSES.request(asked).input_tokens_bound - RESPONSES.request(bare).input_tokens_bound
    assert abs(in_chat - in_responses) < 50
    return min(in_chat, in_responses)


def url(width, height):
    return "data:image/png;base64," + encoded(png(width, height))


# The worked examples of OpenAI's guide, and what its tables say of the ends.
@pytest.mark.parametrize(
    ("model", "size", "detail", "billed"),
    [
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1_105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4.1", (1024, 1024), None, 765),
        ("gpt-4o-mini", (1024, 1024), "high", 2_833 + 4 * 5_667),
        ("gpt-4o-mini", (4096, 8192), "low", 2_833),
        ("gpt-5", (1024, 1024), "high", 70 + 4 * 140),
        ("o3", (1024, 1024), "high", 75 + 4 * 150),
        ("gpt-4.1-mini", (1024, 1024), None, math.ceil(1_024 * 1.62)),
        ("gpt-4.1-mini", (1800, 2400), None, math.ceil(1_452 * 1.62)),
        ("gpt-5-nano", (1800, 2400), None, math.ceil(1_452 * 2.46)),
        ("o4-mini", (1024, 1024), None, math.ceil(1_024 * 1.72)),
        ("gpt-5-mini", (4096, 4096), "low", math.ceil(256 * 1.62)),
        ("gpt-5.2", (4096, 4096), None, 1_536),
        ("gpt-5.4", (4096, 4096), None, 2_500),
        ("gpt-5.4", (4096, 4096), "original", 10_000),
        ("gpt-5.5", (4096, 4096), "high", 2_500),
        ("gpt-5.5", (4096, 4096), None, 10_000),
        ("gpt-5.6-sol", (8192, 4096), None, 32_768),
        ("gpt-5.6-sol", (8192, 4096), "low", 256),
    ],
)
def test_an_image_costs_what_openai_documents(model, size, detail, billed):
    """Tiles or patches, as the model counts them, at each detail; never less, and at most three times as much."""
    more = {} if detail is None else {"detail": detail}
    assert billed <= openai_bound(model, url(*size), **more) <= 3 * billed + 100


@pytest.mark.parametrize(
    ("model", "largest"),
    [("gpt-4o", 85 + 8 * 170), ("gpt-4o-mini", 2_833 + 8 * 5_667), ("gpt-5-mini", math.ceil(1_536 * 1.62))],
)
def test_an_image_of_unknown_size_counts_as_the_largest(model, largest):
    """An image format that is not read here is no larger than the rule of its model allows."""
    image = "data:image/avif;base64," + "A" * 4_000_000
    assert largest <= openai_bound(model, image) <= largest + 100


def test_an_image_for_a_model_without_a_known_name_counts_the_most():
    """A deployment on Azure may be any model: gpt-4o-mini bills the most for an image."""
    assert openai_bound("my-deployment", url(1024, 1024)) >= 2_833 + 4 * 5_667
    assert openai_bound("llama-4-scout", url(1024, 1024)) < 9_000


@given(width=SIDES, height=SIDES, more=st.tuples(st.integers(0, 500), st.integers(0, 500)))
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-5-mini", "gpt-5.4", "gpt-6-astra", "my-deployment"])
def test_an_openai_image_is_never_below_its_formula(model, width, height, more):
    """For images of any size, the bound is what the documented formula gives or more, and grows with the detail."""
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    tiles = math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
    patches = math.ceil(width / 32) * math.ceil(height / 32)
    billed = {
        "gpt-4o": 85 + 170 * tiles,
        "gpt-4o-mini": 2_833 + 5_667 * tiles,
        "gpt-5-mini": min(patches, 1_536) * 1.62,
        "gpt-5.4": min(patches, 2_500),
        "gpt-6-astra": patches,
        "my-deployment": max(patches, 2_833 + 5_667 * tiles),
    }[model]
    bound = openai_bound(model, url(width, height))
    assert bound >= billed
    assert openai_bound(model, url(width, height), detail="low") <= bound + 50
    if model in ("gpt-5-mini", "gpt-5.4", "gpt-6-astra"):
        assert openai_bound(model, url(width + more[0], height + more[1])) >= bound


# ---- images: Anthropic


def claude_bound(model, image):
    part = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}}
    asked = {"model": model, "messages": [{"role": "user", "content": [part]}]}
    bare = {"model": model, "messages": [{"role": "user", "content": []}]}
    return MESSAGES.request(asked).input_tokens_bound - MESSAGES.request(bare).input_tokens_bound


OLD_CLAUDES = [
    "claude-3-opus-20240229",
    "claude-3-5-haiku-latest",
    "claude-sonnet-4-20250514",
    "claude-opus-4-1",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "claude-opus-4-6",
    "claude-haiku-4-5@20251001",
]
NEW_CLAUDES = ["claude-opus-4-7", "claude-opus-4-8-20260601", "claude-sonnet-5-5", "claude-fable-5", "my-profile"]


# The worked examples of Anthropic's guide "Vision", before and after it counted patches.
@pytest.mark.parametrize(
    ("size", "old", "new"),
    [
        ((200, 200), 64, 64),
        ((1000, 1000), 1_334, 1_334),
        ((1092, 1092), 1_590, 1_590),
        ((2000, 1500), 1_560, 3_888),
        ((2576, 1456), 1_560, 4_784),
        ((8000, 8000), 1_560, 4_784),
    ],
)
def test_an_image_costs_what_anthropic_documents(size, old, new):
    """A token for each 28 x 28 pixels, up to what the model scales an image down to."""
    for models, billed in ((OLD_CLAUDES, old), (NEW_CLAUDES, new)):
        for model in models:
            assert billed <= claude_bound(model, encoded(png(*size))) <= billed * 1.05 + 100


@given(width=SIDES, height=SIDES, more=st.tuples(st.integers(0, 500), st.integers(0, 500)))
def test_an_anthropic_image_is_never_below_its_formula(width, height, more):
    """For images of any size, the bound is that of the patches or more, and a larger image has no smaller one."""
    patches = math.ceil(width / 28) * math.ceil(height / 28)
    for model, most in (("claude-opus-4-6", 1_568), ("claude-opus-4-7", 4_784)):
        bound = claude_bound(model, encoded(png(width, height)))
        assert bound >= min(patches, most)
        assert claude_bound(model, encoded(png(width + more[0], height + more[1]))) >= bound


# ---- sounds


def test_a_sound_costs_what_openai_documents():
    """Ten tokens a second, of which WAV tells the number, and an MP3 has one for each 1,000 bytes at the most."""
    for sound, billed, most in ((wav(24_000, 1, 30), 300, 500), (b"ID3" + bytes(30_000), 300, 500)):
        part = {"type": "input_audio", "input_audio": {"data": encoded(sound), "format": "wav"}}
        asked = {"model": "gpt-audio", "messages": [{"role": "user", "content": [part]}]}
        bare = {"model": "gpt-audio", "messages": [{"role": "user", "content": []}]}
        assert billed <= CHAT.request(asked).input_tokens_bound - CHAT.request(bare).input_tokens_bound <= most


# ---- documents


@pytest.mark.parametrize(
    ("file", "pages", "text"),
    [
        (pdf(shown(b"Hello")), 1, 5),
        (pdf(*[shown(b"x" * 500)] * 12), 12, 6_000),
        (pdf(shown(rb"a \(b\) c (d) e")), 1, 13),
        (pdf(b"BT <0048006500> Tj ET"), 1, 3),
        (pdf(shown(b"a"), objects=b"3 0 obj\n<< /Type /Pages /Count 40 >>\nendobj\n"), 40, 1),
        (
            pdf(
                shown(b"a"), objects=b"5 0 obj\n%b\nendobj\n" % stream(b"<< /Type/Page >> " * 9, b"/Type /ObjStm /N 9 ")
            ),
            10,
            1,
        ),
        (pdf(*[b"/F Do"] * 7, objects=b"5 0 obj\n%b\nendobj\n" % stream(shown(b"y" * 90), b"/Subtype /Form ")), 7, 630),
    ],
    ids=["one", "twelve", "escapes", "hexadecimal", "counted", "packed objects", "form on each page"],
)
def test_a_pdf_tells_its_pages_and_its_text(file, pages, text):
    """Pages are found among the objects, the packed ones too; strings are counted, and forms on every page."""
    for given_as in (file, encoded(file)):
        found = documents.read_pdf(given_as)
        assert found.pages == pages
        assert text <= found.text_tokens <= 3 * text + 10 * pages


@pytest.mark.parametrize(
    "file",
    [
        pdf(shown(b"Hello"))[:-60],
        pdf(shown(b"Hello"), objects=b"<< /Encrypt 8 0 R >>"),
        pdf(shown(b"Hello"), objects=b"7 0 obj\n<< /Filter /LZWDecode /Length 3 >>\nstream\nabc\nendstream\nendobj\n"),
        pdf(
            shown(b"Hello"), objects=b"7 0 obj\n<< /Filter /FlateDecode /Length 3 >>\nstream\nabc\nendstream\nendobj\n"
        ),
        b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n%%EOF\n",
        b"no document at all",
    ],
    ids=["cut", "encrypted", "another filter", "damaged", "no pages", "no pdf"],
)
def test_a_pdf_that_is_not_read_counts_its_bytes(file):
    """Where its text cannot be seen, a PDF is bounded by its size."""
    assert documents.read_pdf(encoded(file)) is None
    tokens, unbounded = documents.document_tokens(encoded(file), 1_600)
    assert (tokens >= len(file), unbounded) == (True, None)


def test_pictures_and_fonts_in_a_pdf_are_no_text():
    """A scanned page is an image and no text, whatever bytes the image has."""
    scan = stream(b"(" + b"z" * 90_000 + b")", b"/Subtype /Image ")
    font = stream(b"(" + b"z" * 90_000 + b")", b"/Length1 90002 ")
    file = pdf(b"/Im0 Do", objects=b"5 0 obj\n%b\nendobj\n6 0 obj\n%b\nendobj\n" % (scan, font))
    assert documents.document_tokens(encoded(file), 1_600) == (1_600, None)


def test_a_pdf_that_unpacks_without_an_end_is_not_unpacked():
    """What a few bytes of it unpack to is limited."""
    bomb = pdf(stream(b""), objects=b"5 0 obj\n%b\nendobj\n" % stream(bytes(40_000_000)))
    assert documents.read_pdf(encoded(bomb)) is None


@pytest.mark.parametrize(
    ("reader", "part", "model", "billed", "most"),
    [
        (MESSAGES, "anthropic", "claude-sonnet-4-5", 3 * (1_568 + 150), 3 * (1_600 + 1_300)),
        (MESSAGES, "anthropic", "claude-opus-4-8", 3 * (4_784 + 150), 3 * (4_800 + 1_300)),
        (CHAT, "openai", "gpt-4o", 3 * (765 + 150), 3 * (1_445 + 1_300)),
        (CHAT, "openai", "gpt-5-mini", 3 * (1_536 * 1.62 + 150), 3 * (2_489 + 1_300)),
    ],
)
def test_a_pdf_costs_the_image_and_the_text_of_each_page(reader, part, model, billed, most):
    """What the vendor's guide says that it makes of a page, three times for three pages."""
    file = encoded(pdf(*[shown(b"four letters " * 46)] * 3))
    parts = {
        "anthropic": {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": file}},
        "openai": {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{file}"}},
    }
    facts = reader.request({"model": model, "messages": [{"role": "user", "content": [parts[part]]}]})
    assert billed <= facts.input_tokens_bound <= most + 300
    assert facts.unbounded is None


def test_packed_documents_count_what_they_unpack_to():
    """A docx or xlsx has far more text than bytes; one that cannot be opened has no bound."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "x" * 300_000)
    tokens, unbounded = documents.document_tokens(encoded(packed.getvalue()), 100)
    assert (300_000 <= tokens < 310_000, unbounded) == (True, None)
    assert documents.document_tokens(encoded(packed.getvalue()[:-50]), 100)[1] == "document of unknown size"


@given(st.binary(max_size=400), st.sampled_from([b"%PDF-1.4 stream\n", b"PK\x03\x04", b"", b"%PDF-1.4\n%%EOF"]))
def test_damaged_documents_are_harmless(junk, start):
    """A document cut or damaged anywhere gives a number or a reason."""
    tokens, unbounded = documents.document_tokens(encoded(start + junk + b"%%EOF"), 100)
    assert tokens > 0 or unbounded is not None
