"""The size of a request in Google's content format: the bytes of its text, and a bound for each of its media.

`bounds.walk` knows media by their `type`. Google's parts have none, so those with media are given one first.
"""

import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import InputBound

# Google's guide "Image understanding": an image is cut into tiles of min(width, height) / 1.5 pixels, at least 256 and
# at most 768, of 258 tokens each; recorded calls show one more, of the whole image. Gemini 3 bills an image of any size
# at most 2,240 (guide "Media resolution").
_TILE_TOKENS = 258
_FEWEST_PIXELS, _MOST_PIXELS = 256, 768
_IMAGE_TOKENS = 2_500
# An image whose size is not known here has at most some 100 pixels for each of its bytes.
_IMAGE_BYTES_PER_TOKEN = 10
# Guides "Audio understanding" and "Video understanding": 32 tokens a second of sound; 258 for each frame, one frame a
# second unless told. Speech has no less than 480 bytes a second.
_AUDIO_TOKENS = 500
_AUDIO_BYTES_PER_TOKEN = 15
_SECOND_OF_VIDEO_TOKENS = 350
_VIDEO_TOKENS = 5_000
_MOST_FRAMES = 24
# `mvhd`, the header of an MP4 movie, has times of 4 bytes each in version 0 and of 8 in version 1 (ISO/IEC 14496-12).
_MOVIE = b"mvhd"
_HEAD_CHARS = 262_144

_MARK = "tollspan.media"
_HOLDERS = frozenset(
    {"content", "contents", "functionResponse", "function_response", "instances", "parts", "requests"}
    | {"systemInstruction", "system_instruction"}
)
_INLINE, _BY_URI = ("inlineData", "inline_data"), ("fileData", "file_data")
_MARKED = frozenset((*_INLINE, *_BY_URI))
_DEPTH = 12
_UNITS = {"audio": "tokens_audio_in", "image": "tokens_image_in", "video": "tokens_video_in"}


def content_bound(body: Mapping[str, Any], items: str, model: str | None, *, tools: bool) -> InputBound:
    """Bound the input tokens of one request; `items` names the field with its contents."""
    asked = {key: _marked(value) if key in _HOLDERS else value for key, value in body.items()}
    return bounds.input_bound({**asked, "model": model}, items, _MEDIA, tools=tools)


def units_in(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what a request has besides text: not every model has a price for it."""
    kinds = {mime_type.partition("/")[0] for mime_type in _mime_types(body)}
    return tuple(unit for kind, unit in _UNITS.items() if kind in kinds)


def media_tokens(data: object, mime_type: str, frames: int = 1) -> tuple[int, str | None]:
    """Bound one file in base64: an image, audio, video or anything else, as its MIME type says."""
    kind = mime_type.partition("/")[0].lower()
    size = bounds.decoded_bytes(data)
    if size is None:
        return 0, "media of unknown size"
    if kind == "image":
        return _image_tokens(data, size), None
    if kind == "audio":
        return size // _AUDIO_BYTES_PER_TOKEN + _AUDIO_TOKENS, None
    if kind == "video":
        return _video_tokens(str(data), size, frames), None
    return bounds.file_tokens(data)


def _image_tokens(data: object, size: int) -> int:
    pixels = bounds.pixels(_standard(str(data)[:_HEAD_CHARS]))
    if pixels is None or not all(pixels):
        return size // _IMAGE_BYTES_PER_TOKEN + _IMAGE_TOKENS
    tile = min(max(int(min(pixels) / 1.5), _FEWEST_PIXELS), _MOST_PIXELS)
    tiles = math.ceil(pixels[0] / tile) * math.ceil(pixels[1] / tile) + 1
    return max(tiles * _TILE_TOKENS, _IMAGE_TOKENS)


def _video_tokens(data: str, size: int, frames: int) -> int:
    seconds = _seconds(_decoded(data))
    # Where its length is not found, not even a film of still images has so few bytes.
    tokens = size if seconds is None else math.ceil(seconds) * _SECOND_OF_VIDEO_TOKENS
    return tokens * frames + _VIDEO_TOKENS


def _standard(base64: str) -> str:
    """Give base64 in its standard alphabet: google-genai sends the one for URLs."""
    return base64.replace("-", "+").replace("_", "/")


def _decoded(base64: str) -> bytes:
    whole = _standard(base64[: len(base64) // 4 * 4])
    try:
        return binascii.a2b_base64(whole)
    except ValueError:
        return b""


def _seconds(movie: bytes) -> float | None:
    """Give the length of an MP4 movie, from its header; None where there is none, or where it does not say."""
    at = movie.rfind(_MOVIE) + len(_MOVIE)
    wide = movie[at : at + 1] == b"\x01"
    scale_at, length = (at + 20, 8) if wide else (at + 12, 4)
    scale = int.from_bytes(movie[scale_at : scale_at + 4])
    ticks = int.from_bytes(movie[scale_at + 4 : scale_at + 4 + length])
    known = at >= len(_MOVIE) and scale and 0 < ticks < 2 ** (8 * length) - 1
    return ticks / scale if known else None


def _marked(value: object, depth: int = _DEPTH) -> object:
    """Give every part with media a `type` under which `bounds.walk` finds its reader."""
    if type(value) is list:
        return [_marked(item, depth - 1) for item in value] if depth else value
    if type(value) is not dict or not depth:
        return value
    changed = {key: _marked(inner, depth - 1) for key, inner in value.items() if key in _HOLDERS}
    if not _MARKED.isdisjoint(value):
        changed["type"] = _MARK
    return {**value, **changed} if changed else value


def _read_media(part: Mapping[str, Any], _model: str) -> bounds.Measured:
    rest = bounds.without(part, "type", *_INLINE, *_BY_URI)
    if any(part.get(key) for key in _BY_URI):
        return 0, "file by URI", rest
    blob: Mapping[str, Any] = next((part[key] for key in _INLINE if isinstance(part.get(key), Mapping)), {})
    frames = sse.at(part.get("videoMetadata") or part.get("video_metadata"), "fps")
    frames = min(max(math.ceil(bounds.number(frames) or 1), 1), _MOST_FRAMES)
    return *media_tokens(blob.get("data"), _mime_type(blob), frames), rest


def _mime_type(blob: object) -> str:
    return sse.text(sse.at(blob, "mimeType")) or sse.text(sse.at(blob, "mime_type")) or ""


def _mime_types(value: object, depth: int = _DEPTH) -> Iterator[str]:
    if type(value) is list and depth:
        for item in value:
            yield from _mime_types(item, depth - 1)
    elif type(value) is dict and depth:
        for key, inner in value.items():
            if key in _MARKED:
                yield _mime_type(inner).lower()
            elif key in _HOLDERS:
                yield from _mime_types(inner, depth - 1)


_MEDIA: dict[str, bounds.MediaReader] = {_MARK: _read_media}
