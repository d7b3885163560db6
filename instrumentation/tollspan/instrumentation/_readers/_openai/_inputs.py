"""What a request in OpenAI's format may hold besides text, and its tokens at the most: images, files, sounds."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._documents import document_tokens
from tollspan.instrumentation._readers._inline import is_remote, pixels

# Source: OpenAI's guide "Images and vision", sections "Model sizing behavior" and "Calculating costs", as of 2026.
# Tiles: a sum, and another for each 512 x 512 pixels. The first pattern that a name begins with counts.
_TILES: tuple[tuple[re.Pattern[str], tuple[int, int]], ...] = (
    (re.compile(r"gpt-4o-mini"), (2_833, 5_667)),
    (re.compile(r"(?:chatgpt-|gpt-)4o|gpt-4-(?:turbo|vision)|gpt-4\.[15](?!-mini|-nano)"), (85, 170)),
    (re.compile(r"gpt-5(?:-chat|-\d|$)|o1|o3|computer-use"), (85, 170)),  # less, by the guide
)
_MOST_TILES = 8
# Patches: each 32 x 32 pixels, times a factor. The smaller models scale an image down to 1,536 of them. So do GPT-5.4
# and 5.5 to 2,500, or to 10,000 at the detail `original`, which 5.5 takes for the default; later ones keep any size.
_PATCH = 32
_FEWEST_PATCHES = 256  # of 512 x 512 pixels, to which the detail `low` scales, and which `auto` may stand for
_FACTORS = ((re.compile(r".*-nano"), 2.46), (re.compile(r"gpt-.*-mini"), 1.62), (re.compile(r"o4-mini"), 1.72))
_LARGEST_FACTOR = 2.46
_SMALL = re.compile(
    r"gpt-4\.1-(?:mini|nano)|gpt-5(?:\.\d+)?-(?:mini|nano)|gpt-5\.[1-3](?!\d)|gpt-5-codex|codex-|o4-mini"
)
_WITH_ORIGINAL = re.compile(r"gpt-5\.[45](?!\d)")
_ORIGINAL_BY_DEFAULT = re.compile(r"gpt-5\.5(?!\d)")
_SMALL_PATCHES, _HIGH_PATCHES, _ORIGINAL_PATCHES = 1_536, 2_500, 10_000
_OURS = re.compile(r"o1|o3|o4|gpt-|chatgpt|ft:|codex|computer-use")
# Other vendors bill fixed sums for an image of any size: Llama up to 6,404 tokens, Claude 4,784, Gemini 3 some 1,120. A
# name that tells no vendor, as a deployment on Azure has, may be any model: gpt-4o-mini counts the most.
_FOREIGN = re.compile(
    r"aya|claude|command|deepseek|gem(?:ini|ma)|glm|grok|intern|kimi|llama|llava|(?:min|mag|m)istral|minimax|molmo|nova"
    r"|phi|pixtral|qv|qwen|step"
)
_FOREIGN_IMAGE_TOKENS = 8_500
_SOUND_TOKENS_PER_SECOND = 10  # OpenAI's guide "Managing costs" of the Realtime API


class _Sizing(NamedTuple):
    """How a model counts an image: by tiles, or by at most so many patches (None: any number), times a factor."""

    tiles: tuple[int, int] | None
    patches: int | None
    factor: float


_DEAREST = _Sizing(_TILES[0][1], None, _LARGEST_FACTOR)


def image_tokens(image: str, model: str, detail: object = None) -> tuple[int, str | None]:
    """Bound one image, given as a `data:` URL, an address or base64 (formula and source: see `_TILES`).

    One that says it is an image and is of no known size counts as the largest, where there is one. What has no image's
    header otherwise counts all of its bytes: the API refuses it, or it is no image at all.
    """
    if is_remote(image):
        return 0, "image by URL"
    name = _name(model)
    sizing = _sizing(name, detail)
    size = pixels(image)
    if size is None:
        largest = _largest(sizing) if _OURS.match(name) and image.startswith("data:image/") else None
        return sse.utf8_bytes(image) if largest is None else largest, None
    if _OURS.match(name):
        return _low(sizing) if detail == "low" else _sized(sizing, *size), None
    return max(_sized(sizing, *size), _foreign(name, *size)), None


def _foreign(name: str, width: int, height: int) -> int:
    return _FOREIGN_IMAGE_TOKENS if _FOREIGN.search(name.lower()) else _sized(_DEAREST, width, height)


def _name(model: str) -> str:
    return model.rpartition("/")[2].removeprefix("ft:").removeprefix("openai.")


def _sizing(name: str, detail: object) -> _Sizing:
    tiles = next((tokens for pattern, tokens in _TILES if pattern.match(name)), None)
    factor = next((factor for pattern, factor in _FACTORS if pattern.match(name)), _LARGEST_FACTOR)
    if _SMALL.match(name):
        return _Sizing(tiles, _SMALL_PATCHES, factor)
    if not _WITH_ORIGINAL.match(name):
        return _Sizing(tiles, None, factor)
    original = detail == "original" or (detail != "high" and _ORIGINAL_BY_DEFAULT.match(name))
    return _Sizing(tiles, _ORIGINAL_PATCHES if original else _HIGH_PATCHES, factor)


def _low(sizing: _Sizing) -> int:
    return sizing.tiles[0] if sizing.tiles else math.ceil(_FEWEST_PATCHES * sizing.factor)


def _largest(sizing: _Sizing) -> int | None:
    if sizing.tiles:
        return sizing.tiles[0] + sizing.tiles[1] * _MOST_TILES
    return math.ceil(sizing.patches * sizing.factor) if sizing.patches else None


def _sized(sizing: _Sizing, width: int, height: int) -> int:
    if sizing.tiles:
        return sizing.tiles[0] + sizing.tiles[1] * _tiles(width, height)
    patches = max(math.ceil(width / _PATCH) * math.ceil(height / _PATCH), _FEWEST_PATCHES)
    return math.ceil(min(patches, sizing.patches or patches) * sizing.factor)


def _tiles(width: int, height: int) -> int:
    """Count tiles of 512 pixels, after fitting into 2,048 x 2,048 and bringing the shorter side down to 768."""
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    return math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


def file_bound(file: Mapping[str, Any], model: str) -> tuple[int, str | None]:
    """Bound a file object: inline data, else an address or an id that the server resolves."""
    if file.get("file_id"):
        return 0, "file held by the server"
    if file.get("file_url") or is_remote(file.get("file_data")):
        return 0, "file by URL"
    return document_tokens(file.get("file_data"), _page_tokens(_name(model)))


def _page_tokens(name: str) -> int:
    """Give the most that the image of a page is billed at; nobody says how large pages are drawn for other models."""
    largest = _largest(_sizing(name, "high")) if _OURS.match(name) else _FOREIGN_IMAGE_TOKENS
    return largest or math.ceil(_ORIGINAL_PATCHES * _LARGEST_FACTOR)


def _read_image(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    image = part.get("image_url")
    inner = image if isinstance(image, Mapping) else {"url": image}
    if not isinstance(url := inner.get("url"), str):
        return None
    rest = (*bounds.without(inner, "url"), *bounds.without(part, "image_url"))
    return *image_tokens(url, model, inner.get("detail")), rest


def _read_audio(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    audio = part.get("input_audio")
    if not isinstance(audio, Mapping):
        return None
    rest = (*bounds.without(audio, "data"), *bounds.without(part, "input_audio"))
    return *bounds.sound_tokens(audio.get("data"), _SOUND_TOKENS_PER_SECOND), rest


def _read_file(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    file = part.get("file")
    if not isinstance(file, Mapping):
        return None
    return *file_bound(file, model), (*bounds.without(file, "file_data"), *bounds.without(part, "file"))


def _read_remote(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    kind = str(part["type"])
    return (0, f"{kind.removesuffix('_url')} input", ()) if kind in part else None


MEDIA: dict[str, bounds.MediaReader] = {
    "document_url": _read_remote,
    "file": _read_file,
    "image_url": _read_image,
    "input_audio": _read_audio,
    "input_video": _read_remote,
    "video_url": _read_remote,
}
