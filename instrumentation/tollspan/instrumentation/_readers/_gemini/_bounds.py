"""The size of a request in Google's content format: the bytes of its text, and a bound for each of its media.

`bounds.walk` knows media by their `type`. Google's parts have none, so those with media are given one first.
"""

import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._documents import document_tokens
from tollspan.instrumentation._readers._facts import InputBound
from tollspan.instrumentation._readers._inline import decoded_bytes, movie_seconds, pixels

# Gemini 1 and 2, Google's guides "Image understanding" and "Media resolution": an image of at most 384 pixels a side is
# 258 tokens. A larger one is cut into tiles of min(width, height) / 1.5 pixels, at least 256 and at most 768, of 258
# tokens each; recorded calls show one more, of the whole image. The resolution `high` pans over it: 2,048 more.
_BEFORE_3 = re.compile(r"(?:.*/)?gemini-(?:robotics-er-)?[12](?:\.|-)")
_GEMINI_3 = re.compile(r"(?:.*/)?gemini-3(?!\d)")
_TILE_TOKENS = 258
_UNCUT_PIXELS, _FEWEST_PIXELS, _MOST_PIXELS = 384, 256, 768
_PANNED_TOKENS = 256 + 2_048
# An image whose size is not known here has at most some 100 pixels for each of its bytes.
_IMAGE_BYTES_PER_TOKEN, _IMAGE_TOKENS = 10, 2_500
# Gemini 3, the guide "Media resolution": tokens of an image of any size, and of the image of a page; of a frame 70, or
# 280 at `high`. Recorded calls show 1,092 for a page without a resolution.
_OF_IMAGE = {"low": 280, "medium": 560, "high": 1_120, "ultra_high": 2_240}
_IMAGE_BY_DEFAULT = 1_120
_OF_FRAME, _OF_FRAME_AT_HIGH = 70, 280
_OF_TIMESTAMP = 16
# Guides "Audio understanding" and "Video understanding": 32 tokens a second of sound; before Gemini 3, 258 of a frame
# and some for its time; one frame a second unless told.
_OF_SECOND_OF_SOUND = 33
_OF_FRAME_BEFORE_3 = 263
_VIDEO_TOKENS = 512
_LEAST_VIDEO_BYTES = 350  # of a second: not even a film of still images has fewer
_MOST_FRAMES = 24

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
    config = body.get("generationConfig") or body.get("generation_config")
    media = {_MARK: partial(_read_media, _level(config))}
    return bounds.input_bound({**asked, "model": model}, items, media, tools=tools)


def units_in(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what a request has besides text: not every model has a price for it."""
    kinds = {mime_type.partition("/")[0] for mime_type in _mime_types(body)}
    return tuple(unit for kind, unit in _UNITS.items() if kind in kinds)


def is_text(body: Mapping[str, Any]) -> bool:
    """Tell whether a request has no media, of which Google also bills a document's pages as images."""
    return next(_mime_types(body), None) is None


def media_tokens(
    data: object, mime_type: str, model: str, *, frames: int = 1, level: str | None = None
) -> tuple[int, str | None]:
    """Bound one file in base64: an image, audio, video or anything else, as its MIME type says.

    `frames` of a video are looked at for each second; `level` is the media resolution: `low` to `ultra_high`.
    """
    kind = mime_type.partition("/")[0].lower()
    size = decoded_bytes(data)
    if size is None:
        return 0, "media of unknown size"
    if kind == "audio":
        return bounds.sound_tokens(data, _OF_SECOND_OF_SOUND)
    if kind == "video":
        return _video_tokens(data, size, frames * _frame_tokens(model, level) + _OF_SECOND_OF_SOUND), None
    shown = _OF_IMAGE.get(level or "", _IMAGE_BY_DEFAULT)
    if kind == "image":
        return _by_generation(model, _image_before_3(data, size, level), shown), None
    return document_tokens(data, _by_generation(model, _TILE_TOKENS, shown))


def _by_generation(model: str, before_3: int, since: int) -> int:
    """Give the number that a model's generation has; the larger one where its name does not tell, as of a tuned one."""
    if _BEFORE_3.match(model):
        return before_3
    return since if _GEMINI_3.match(model) else max(before_3, since)


def _image_before_3(data: object, size: int, level: str | None) -> int:
    if level in ("low", "medium"):
        return _TILE_TOKENS
    sides = pixels(data)
    if sides is None:
        return size // _IMAGE_BYTES_PER_TOKEN + _IMAGE_TOKENS
    panned = _PANNED_TOKENS if level == "high" else 0
    if max(sides) <= _UNCUT_PIXELS:
        return max(_TILE_TOKENS, panned)
    tile = min(max(int(min(sides) / 1.5), _FEWEST_PIXELS), _MOST_PIXELS)
    tiles = math.ceil(sides[0] / tile) * math.ceil(sides[1] / tile) + 1
    return max(tiles * _TILE_TOKENS, panned)


def _frame_tokens(model: str, level: str | None) -> int:
    since = _OF_FRAME_AT_HIGH if level in ("high", "ultra_high") else _OF_FRAME
    return _by_generation(model, _OF_FRAME_BEFORE_3, since + _OF_TIMESTAMP)


def _video_tokens(data: object, size: int, per_second: int) -> int:
    seconds = movie_seconds(data)
    length = size / _LEAST_VIDEO_BYTES if seconds is None else seconds
    return math.ceil(length + 1) * per_second + _VIDEO_TOKENS


def _level(holder: object) -> str | None:
    """Give the media resolution that a request names, or a part inside of an object: `low` to `ultra_high`."""
    named = sse.at(holder, "mediaResolution") or sse.at(holder, "media_resolution")
    level = sse.text(named) or sse.text(sse.at(named, "level"))
    return level.lower().removeprefix("media_resolution_") if level else None


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


def _read_media(level: str | None, part: Mapping[str, Any], model: str) -> bounds.Measured:
    rest = bounds.without(part, "type", *_INLINE, *_BY_URI)
    if any(part.get(key) for key in _BY_URI):
        return 0, "file by URI", rest
    blob: Mapping[str, Any] = next((part[key] for key in _INLINE if isinstance(part.get(key), Mapping)), {})
    frames = sse.at(part.get("videoMetadata") or part.get("video_metadata"), "fps")
    frames = min(max(math.ceil(bounds.number(frames) or 1), 1), _MOST_FRAMES)
    level = _level(part) or level
    return *media_tokens(blob.get("data"), _mime_type(blob), model, frames=frames, level=level), rest


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
