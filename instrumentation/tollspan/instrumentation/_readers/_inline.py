"""What a file that stands in a request tells of itself in its headers: pixels, seconds.

A file is a base64 string, a `data:` URL of one, or bytes. Only the few bytes that are looked at are decoded.
"""

import binascii
import math
from collections.abc import Iterator

Inline = str | bytes | bytearray

_HEAD_BYTES = 48
_JPEG_MARK = 0xFF
# ITU-T T.81: the start-of-frame markers are SOF0 to SOF15, but for DHT, JPG and DAC among them.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_FRAME_BYTES = 9
_MOST_PIECES = 4_096

# WAVE_FORMAT_PCM, _IEEE_FLOAT and _EXTENSIBLE: a second of these has as many bytes as the header says.
_EVEN_WAVES = frozenset({1, 3, 0xFFFE})
# The lowest bit rate that an MP3 may have is 8 kbit/s (ISO/IEC 13818-3); AMR speech, the leanest in use, has 4.75.
_LEAST_MP3_BYTES = 1_000
_LEAST_AUDIO_BYTES = 480
_MP3_SYNC = (0xFFE0, 0xFFE0)
# `mvhd`, the header of an MP4 movie, has times of 4 bytes each in version 0 and of 8 in version 1 (ISO/IEC 14496-12).
_MOVIE_BYTES = 4_096
_BOX_BYTES = 8


def is_inline(value: object) -> bool:
    """Tell whether a value is a file's content: not an open file, and not an address."""
    return isinstance(value, bytes | bytearray | str) and not is_remote(value)


def is_remote(value: object) -> bool:
    """Tell whether a string is an address to fetch from: its size is not ours to know."""
    return isinstance(value, str) and not value.startswith("data:") and "://" in value[:16]


def decoded_bytes(value: object) -> int | None:
    """Give the size of what a base64 string, or a `data:` URL of one, decodes to; None for open files and paths."""
    if isinstance(value, bytes | bytearray):
        return len(value)
    return (len(value) - _base64_start(value)) * 3 // 4 + 3 if isinstance(value, str) else None


def content(value: Inline, start: int = 0, size: int | None = None) -> bytes:
    """Decode some of a file's bytes, or all after `start`; fewer, or none, where it is cut or no base64."""
    if not isinstance(value, str):
        return bytes(value[start : None if size is None else start + size])
    begin = _base64_start(value)
    first = start // 3 * 4
    last = None if size is None else begin + -(-(start + size) // 3) * 4
    decoded = _decoded(value[begin + first : last])[start % 3 :]
    return decoded if size is None else decoded[:size]


def _base64_start(value: str) -> int:
    return value.find(",", 0, 256) + 1 if value.startswith("data:") else 0


def _decoded(base64: str) -> bytes:
    if "-" in base64 or "_" in base64:  # the alphabet for URLs, which google-genai sends
        base64 = base64.replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(base64[: len(base64) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


# ---- images


def pixels(value: object) -> tuple[int, int] | None:
    """Give width and height of a PNG, GIF, WebP or JPEG, from its header; None where it is none of them."""
    if not isinstance(value, str | bytes | bytearray):
        return None
    head = content(value, 0, _HEAD_BYTES)
    size = None
    if head.startswith(b"\x89PNG"):
        size = _big(head[16:20]), _big(head[20:24])
    elif head.startswith(b"GIF8"):
        size = _little(head[6:8]), _little(head[8:10])
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        size = _webp_pixels(head)
    elif head.startswith(b"\xff\xd8"):
        size = _jpeg_pixels(value)
    return size if size and all(size) else None


def _webp_pixels(head: bytes) -> tuple[int, int] | None:
    """Read the size from the first chunk, which is of one of three kinds (WebP container specification)."""
    kind = head[12:16]
    if kind == b"VP8X":
        return _little(head[24:27]) + 1, _little(head[27:30]) + 1
    if kind == b"VP8L":
        packed = _little(head[21:25])
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    return (_little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF) if kind == b"VP8 " else None


def _jpeg_pixels(image: Inline) -> tuple[int, int] | None:
    """Read the size from the first start-of-frame segment, however much stands before it."""
    at = 2
    for _ in range(_MOST_PIECES):
        segment = content(image, at, _JPEG_FRAME_BYTES)
        if len(segment) < _JPEG_FRAME_BYTES or segment[0] != _JPEG_MARK:
            return None
        if segment[1] in _JPEG_FRAMES:
            return _big(segment[7:9]), _big(segment[5:7])
        at += 1 if segment[1] == _JPEG_MARK else 2 + max(_big(segment[2:4]), 2)
    return None


# ---- sound and film


def audio_seconds(value: object) -> float | None:
    """Bound the length of a sound: from the header of WAV and FLAC, else by the fewest bytes that a second has.

    None for open files and paths, whose size is not known.
    """
    size = decoded_bytes(value)
    if size is None or not isinstance(value, str | bytes | bytearray):
        return None
    head = content(value, 0, _HEAD_BYTES)
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        seconds = _wav_seconds(value, size)
    elif head.startswith(b"fLaC"):
        seconds = _flac_seconds(head)
    else:
        is_mp3 = head.startswith(b"ID3") or _big(head[:2]) & _MP3_SYNC[0] == _MP3_SYNC[1]
        seconds = size / (_LEAST_MP3_BYTES if is_mp3 else _LEAST_AUDIO_BYTES)
    return size / _LEAST_AUDIO_BYTES if seconds is None else seconds


def _wav_seconds(sound: Inline, size: int) -> float | None:
    """Read how many bytes a second has from the `fmt ` chunk; what compresses them tells only an average."""
    at = 12
    for _ in range(_MOST_PIECES):
        chunk = content(sound, at, _BOX_BYTES + 16)
        if len(chunk) < _BOX_BYTES + 16:
            return None
        if chunk[:4] == b"fmt ":
            kind, rate, frame = _little(chunk[8:10]), _little(chunk[12:16]), _little(chunk[20:22])
            return size / (rate * frame) if kind in _EVEN_WAVES and rate * frame else None
        at += _BOX_BYTES + _little(chunk[4:8]) + _little(chunk[4:8]) % 2
    return None


def _flac_seconds(head: bytes) -> float | None:
    """Read rate (20 bits) and number of samples (36 bits) from the STREAMINFO block (RFC 9639, section 8.2)."""
    packed = _big(head[18:26])
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return samples / rate if rate and samples else None


def movie_seconds(value: object) -> float | None:
    """Read the length of an MP4 or QuickTime film from its header, at whichever end that is; None where it has none."""
    if not isinstance(value, str | bytes | bytearray):
        return None
    for kind, start in _boxes(value):
        if kind == b"moov":
            return _movie_seconds(content(value, start, _MOVIE_BYTES))
    return None


def _boxes(film: Inline) -> Iterator[tuple[bytes, int]]:
    """Give kind and start of content of the boxes that an MP4 is made of."""
    at = 0
    for _ in range(_MOST_PIECES):
        head = content(film, at, 2 * _BOX_BYTES)
        size, wide = _big(head[:4]), _big(head[:4]) == 1
        size = _big(head[_BOX_BYTES:]) if wide else size
        if len(head) < _BOX_BYTES or size < _BOX_BYTES:
            return
        yield head[4:8], at + (2 if wide else 1) * _BOX_BYTES
        at += size


def _movie_seconds(movie: bytes) -> float | None:
    at = movie.find(b"mvhd") + 4
    scale_at, length = (at + 20, 8) if movie[at : at + 1] == b"\x01" else (at + 12, 4)
    scale = _big(movie[scale_at : scale_at + 4])
    ticks = _big(movie[scale_at + 4 : scale_at + 4 + length])
    known = at > 4 and scale and 0 < ticks < 2 ** (8 * length) - 1  # noqa: PLR2004 - the name of the box
    return ticks / scale if known and math.isfinite(ticks / scale) else None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
