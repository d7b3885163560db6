"""What a DashScope request may use at the most, and its media, which are told by their keys and not by a type."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import InputBound
from tollspan.instrumentation._readers._inline import pixels

# No model takes more for an image, wherever it comes from; one token is 28 x 28 pixels or more, and two are around
# them. Small images are scaled up (Model Studio, "Visual understanding", "Image and video token conversion").
_MOST_IMAGE_TOKENS = 16_386
_FEWEST_IMAGE_TOKENS = 1_284
_PATCH = 28
_AUDIO_TOKENS_PER_SECOND = 25  # Model Studio, "Audio understanding"
_DEPTH = 6
_HELD = "file held by the server"

# Thinking is outside of `max_tokens`, and this long at the most (Model Studio, "Deep thinking").
MOST_THINKING_TOKENS = 81_920
_ALWAYS_THINKS = re.compile(r"qwq|qvq|thinking|deepseek-r")
# Think only when they are told to: the commercial models before Qwen 3.5, and what came before Qwen 3.
_THINKS_IF_TOLD = re.compile(
    r"qwen-(?:max|plus|turbo|flash|long|coder|math|mt|vl|audio|omni|doc|tts|image)|qwen(?:1|2|-?\d+b)|.*instruct"
    r"|qwen3-(?:max|coder|vl-plus|vl-flash|omni|tts|asr)|deepseek-v3|llama|baichuan|chatglm|yi-"
)


def input_bound(body: Mapping[str, Any], items: str) -> InputBound:
    """Bound the input tokens of one attempt; `items` names the list in its input. See `_bounds.input_bound`."""
    found = _Media()
    asked = body.get("input")
    text = {**body, "input": found.without(asked, _DEPTH)}
    listed = sse.at(asked, items) if isinstance(asked, dict) else None
    count = len(listed) if isinstance(listed, bounds.SEQUENCES) else 1
    tools = bool(parameters_of(body).get("tools") or parameters_of(body).get("response_format"))
    tokens, endless = bounds.walk(text, {}, "")
    tokens += bounds.REQUEST_TOKENS + bounds.ITEM_TOKENS * count + bounds.TOOLS_TOKENS * tools
    return tokens + found.tokens, found.unbounded or endless


def ranking_bound(body: Mapping[str, Any]) -> InputBound:
    """Bound the input tokens of a ranking: the query is billed again with each of the documents."""
    tokens, unbounded = input_bound(body, "documents")
    documents = sse.at(body.get("input"), "documents")
    count = len(documents) if isinstance(documents, list) else 1
    query, _ = input_bound({"input": {"query": sse.at(body.get("input"), "query")}}, "query")
    return tokens + count * query, unbounded


def parameters_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the parameters of a request, or {}."""
    parameters = body.get("parameters")
    return parameters if isinstance(parameters, Mapping) else {}


def thinks(model: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether an answer may come with thinking."""
    name = model.rpartition("/")[2].lower()
    told = parameters.get("enable_thinking")
    if isinstance(told, bool):
        return told or _ALWAYS_THINKS.search(name) is not None
    return _ALWAYS_THINKS.search(name) is not None or _THINKS_IF_TOLD.match(name) is None


class _Media:
    """The media of a request, as they are found: their tokens, and why those have no bound, or None."""

    __slots__ = ("tokens", "unbounded")

    def __init__(self) -> None:
        self.tokens = 0
        self.unbounded: str | None = None

    def without(self, value: object, depth: int) -> object:
        """Count the media in a value, and give the rest of it."""
        if isinstance(value, str) and value.startswith("fileid://"):
            self.unbounded = self.unbounded or _HELD
        if depth and isinstance(value, bounds.SEQUENCES):
            return [self.without(item, depth - 1) for item in value]
        if not depth or not isinstance(value, Mapping):
            return value
        return {key: inner for key, item in value.items() if (inner := self._kept(value, key, item, depth)) is not None}

    def _kept(self, part: Mapping[str, Any], key: object, item: object, depth: int) -> object:
        reader = _READERS.get(key) if isinstance(key, str) else None
        if reader is None or not _is_media(item):
            return self.without(item, depth - 1)
        for one in item if isinstance(item, bounds.SEQUENCES) else (item,):
            tokens, unbounded = reader(one, part)
            self.tokens += tokens
            self.unbounded = self.unbounded or unbounded
        return None


def _is_media(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, bounds.SEQUENCES) and all(isinstance(one, str) for one in item))


def _image(value: str, part: Mapping[str, Any]) -> InputBound:
    scaled = part.get("min_pixels") is not None or part.get("max_pixels") is not None
    size = None if scaled else pixels(value)
    if size is None:
        return _MOST_IMAGE_TOKENS, None
    patches = math.ceil(size[0] / _PATCH + 1) * math.ceil(size[1] / _PATCH + 1) + 2
    return min(max(patches, _FEWEST_IMAGE_TOKENS), _MOST_IMAGE_TOKENS), None


def _video(value: str, part: Mapping[str, Any]) -> InputBound:
    """Bound a frame of a video as an image; how long one video is, nothing tells."""
    return _image(value, part) if isinstance(part.get("video"), bounds.SEQUENCES) else (0, "video input")


def _audio(value: str, _part: Mapping[str, Any]) -> InputBound:
    inline = value.startswith("data:")
    return bounds.sound_tokens(value, _AUDIO_TOKENS_PER_SECOND) if inline else (0, "audio input")


def _file(_value: str, _part: Mapping[str, Any]) -> InputBound:
    return 0, _HELD


_READERS: dict[str, Callable[[str, Mapping[str, Any]], InputBound]] = {
    "audio": _audio,
    "file": _file,
    "file_list": _file,
    "image": _image,
    "image_list": _image,
    "multi_images": _image,
    "video": _video,
}
