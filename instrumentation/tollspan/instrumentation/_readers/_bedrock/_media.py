"""What Bedrock's own shape of a message can hold besides text, and what it counts at the most.

Converse and the native format of Nova have blocks without a `type`: `{"image": {"format": .., "source": ..}}`.
"""

import binascii
import io
import zipfile
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._anthropic._messages import CLIENT_TOOL_TOKENS, IMAGE_TOKENS
from tollspan.instrumentation._readers._facts import InputBound

# Nova's guide "Image understanding": about one token for each 650 pixels, once the shorter side has at least 896 and
# the sides one of the ratios up to 1:9. Other vendors cap an image at 5,000 tokens or make fewer of its pixels.
_SHORTER_SIDE, _WIDEST, _PIXELS_PER_TOKEN = 896, 9, 600
# Nova's guide "Video understanding": at most 960 frames, of at most 288 tokens each.
_NOVA_VIDEO_TOKENS = 960 * 288
# Measured: with tools, Nova 2 counts up to 850 hidden tokens.
_TOOL_TOKENS = 1_024
# Voxtral makes 12.5 tokens of a second, and no MP3 has under 1,000 bytes a second.
_AUDIO_BYTES_PER_TOKEN = 80
_JPEG_HEAD_BYTES = 196_608
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
    tokens += CLIENT_TOOL_TOKENS * len(own_tools) if isinstance(own_tools, bounds.SEQUENCES) else 0
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
    if "claude" in model:  # of any size
        return IMAGE_TOKENS, None, rest
    data = source.get("bytes")
    if data is None:
        return IMAGE_TOKENS, "image in S3", rest
    sides = bounds.pixels(_base64_head(data))
    return (IMAGE_TOKENS, "image of unknown size", rest) if sides is None else (_image_tokens(*sides), None, rest)


def _image_tokens(width: int, height: int) -> int:
    short, long = sorted((max(width, 1), max(height, 1)))
    ratio = min(-(-long // short), _WIDEST)
    short = max(short, _SHORTER_SIDE)
    return max(IMAGE_TOKENS, short * max(long, short * ratio) // _PIXELS_PER_TOKEN)


def _base64_head(data: object) -> str | None:
    if isinstance(data, bytes | bytearray):
        return b64encode(data[:_JPEG_HEAD_BYTES]).decode()
    return data if isinstance(data, str) else None


def _read_document(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    block, source, rest = _block(part, "document")
    if "s3Location" in source:
        return 0, "document in S3", rest
    data = source.get("bytes")
    if data is None:
        return bounds.FILE_TOKENS, None, (*rest, *source.values())
    if block.get("format") in _ZIPPED:
        return (*_zipped_tokens(data), rest)
    return (*bounds.file_tokens(data), rest)


def _zipped_tokens(data: object) -> tuple[int, str | None]:
    """Bound a compressed document by what its directory says that it unpacks to."""
    try:
        raw = data if isinstance(data, bytes | bytearray) else binascii.a2b_base64(str(data))
        unpacked = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(raw)).infolist())
    except Exception:  # noqa: BLE001 - `zipfile` raises what it likes for a file that is none
        return 0, "document of unknown size"
    return unpacked + bounds.FILE_TOKENS, None


def _read_video(part: Mapping[str, Any], model: str) -> bounds.Measured | None:
    _, _, rest = _block(part, "video")
    return _NOVA_VIDEO_TOKENS, None if "nova" in model else "video", rest


def _read_audio(part: Mapping[str, Any], _model: str) -> bounds.Measured | None:
    _, source, rest = _block(part, "audio")
    size = bounds.decoded_bytes(source.get("bytes"))
    if size is None:
        return 0, "audio of unknown size", rest
    return size // _AUDIO_BYTES_PER_TOKEN + bounds.AUDIO_TOKENS, None, rest


_MEDIA: dict[str, bounds.MediaReader] = {
    f"{_PREFIX}image": _read_image,
    f"{_PREFIX}document": _read_document,
    f"{_PREFIX}video": _read_video,
    f"{_PREFIX}audio": _read_audio,
}
