"""What Bedrock's own shape of a message can hold besides text, and what it counts at the most.

Converse and the native format of Nova have blocks without a `type`: `{"image": {"format": .., "source": ..}}`.
"""

import math
from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._anthropic import _messages as claude
from tollspan.instrumentation._readers._documents import DOCUMENT_TOKENS, document_tokens, zipped_tokens
from tollspan.instrumentation._readers._facts import InputBound
from tollspan.instrumentation._readers._inline import movie_seconds, pixels

# Nova's guide "Image understanding": about one token for each 650 pixels, once the shorter side has at least 896 and
# the sides one of the ratios up to 1:9. Other vendors cap an image at 5,000 tokens or make fewer of its pixels.
_IMAGE_TOKENS = 5_000
_SHORTER_SIDE, _WIDEST, _PIXELS_PER_TOKEN = 896, 9, 600
# Nova's guide "Video understanding": a frame each second, but at most 960, of at most 288 tokens each.
_NOVA_FRAMES, _NOVA_FRAME_TOKENS = 960, 288
# Measured: with tools, Nova 2 counts up to 850 hidden tokens.
_TOOL_TOKENS = 1_024
# Voxtral makes 12.5 tokens of a second of sound (Mistral's model card).
_AUDIO_TOKENS_PER_SECOND = 12.5
_ZIPPED = frozenset({"docx", "xlsx"})
_KINDS = ("image", "document", "video", "audio")
_PREFIX = "bedrock."


def input_bound(body: Mapping[str, Any], model: str | None) -> InputBound:
    """Bound the input tokens of a request in this shape; see `bounds.input_bound`."""
    messages = body.get("messages")
    listed = [_typed_message(message) for message in messages] if isinstance(messages, bounds.SEQUENCES) else messages
    own_tools = sse.at(body.get("additionalModelRequestFields"), "tools")
    tools = bool(body.get("toolConfig") or body.get("outputConfig") or own_tools)
    walked = {**body, "model": model, "messages": listed}
    tokens, endless = bounds.input_bound(walked, "messages", _MEDIA, tools=tools)
    tokens += claude.CLIENT_TOOL_TOKENS * len(own_tools) if isinstance(own_tools, bounds.SEQUENCES) else 0
    tokens += _TOOL_TOKENS if tools and "claude" not in (model or "") else 0
    return tokens, _hosted(body) or endless


def _hosted(body: Mapping[str, Any]) -> str | None:
    tools = sse.at(body.get("toolConfig"), "tools")
    for tool in tools if isinstance(tools, bounds.SEQUENCES) else ():
        if isinstance(tool, Mapping) and isinstance(used := tool.get("systemTool"), Mapping):
            return f"hosted tool {str(used.get('name'))[:64]}"
    return None


def _typed_message(message: object) -> object:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, bounds.SEQUENCES):
        return message
    return {**message, "content": [_typed(block) for block in content]}


def _typed(block: object, *, nested: bool = False) -> object:
    """Give a block the `type` by which `bounds.walk` finds the reader of its media."""
    if not isinstance(block, dict):
        return block
    for kind in _KINDS:
        if isinstance(block.get(kind), Mapping):
            return {**block, "type": _PREFIX + kind}
    if nested:
        return block
    if isinstance(guarded := block.get("guardContent"), dict):
        return {**block, "guardContent": _typed(guarded, nested=True)}
    result = block.get("toolResult")
    if isinstance(result, dict) and isinstance(result.get("content"), bounds.SEQUENCES):
        inner = [_typed(part, nested=True) for part in result["content"]]
        return {**block, "toolResult": {**result, "content": inner}}
    return block


def _block(part: Mapping[str, Any], kind: str) -> tuple[Mapping[str, Any], Mapping[str, Any], tuple[object, ...]]:
    """Give the block of a kind, its source, and all else that is to be walked."""
    block: Mapping[str, Any] = part[kind]
    source = block.get("source")
    rest = (*bounds.without(block, "source"), *bounds.without(part, kind))
    return block, source if isinstance(source, Mapping) else {}, rest


def _read_image(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    _, source, rest = _block(part, "image")
    data = source.get("bytes")
    if "claude" in model:
        return claude.image_tokens(data, model), None, rest
    if data is None:
        return _IMAGE_TOKENS, "image in S3", rest
    sides = pixels(data)
    return (_IMAGE_TOKENS, "image of unknown size", rest) if sides is None else (_image_tokens(*sides), None, rest)


def _image_tokens(width: int, height: int) -> int:
    short, long = sorted((width, height))
    ratio = min(-(-long // short), _WIDEST)
    short = max(short, _SHORTER_SIDE)
    return max(_IMAGE_TOKENS, short * max(long, short * ratio) // _PIXELS_PER_TOKEN)


def _read_document(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    block, source, rest = _block(part, "document")
    if "s3Location" in source:
        return 0, "document in S3", rest
    data = source.get("bytes")
    if data is None:
        return DOCUMENT_TOKENS, None, (*rest, *source.values())
    if block.get("format") in _ZIPPED:
        return *zipped_tokens(data), rest
    return *document_tokens(data, claude.largest_image(model) if "claude" in model else _IMAGE_TOKENS), rest


def _read_video(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    _, source, rest = _block(part, "video")
    seconds = movie_seconds(source.get("bytes"))
    frames = _NOVA_FRAMES if seconds is None else min(math.ceil(seconds) + 1, _NOVA_FRAMES)
    return frames * _NOVA_FRAME_TOKENS, None if "nova" in model else "video", rest


def _read_audio(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    _, source, rest = _block(part, "audio")
    return *bounds.sound_tokens(source.get("bytes"), _AUDIO_TOKENS_PER_SECOND), rest


_MEDIA: dict[str, bounds.MediaReader] = {
    f"{_PREFIX}image": _read_image,
    f"{_PREFIX}document": _read_document,
    f"{_PREFIX}video": _read_video,
    f"{_PREFIX}audio": _read_audio,
}
