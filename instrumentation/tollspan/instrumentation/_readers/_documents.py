"""The tokens of a document that stands in a request.

Of a PDF, vendors give a model the image of each page and its text (OpenAI's guide "File inputs", Anthropic's "PDF
support"). Both are bounded by what stands in the file: pages by the page objects and the counts of the page tree, text
by the strings in it, those in compressed streams included. Nothing is laid out, so a file whose pages draw the same
stream again and again may have more text than is counted; a form that is drawn on many pages is counted on each.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tollspan.instrumentation._readers._inline import Inline, content, decoded_bytes

# What cannot be read as a PDF that is one, as it is encrypted: a page of a generated PDF was measured at 1.2 tokens for
# each of its bytes, the page's image included, on five pages. So it counts one for each byte, plus this.
DOCUMENT_TOKENS = 8_192
_TEXT_TOKENS = 64
# Vendors take no larger file: 32 MB of a request (Anthropic), 50 MB of files (OpenAI, Google).
_MOST_BYTES = 50_000_000
_MOST_UNPACKED_BYTES = 32_000_000
_HEAD_BYTES, _TAIL_BYTES = 1_024, 2_048

# ISO 32000-1: objects and streams are in section 7.3, their filters in 7.4, object streams in 7.5.7, pages in 7.7.3.
_STREAM = re.compile(rb"\bstream\r?\n")
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_COUNT = re.compile(rb"/Count\s+(\d{1,7})(?!\d)")
_FILTER = re.compile(rb"/Filter\s*(?:\[([^\]]*)\]|/([A-Za-z0-9]+))")
# Pictures, fonts and what describes the file: nothing of these is text on a page.
_TEXTLESS = re.compile(
    rb"/Subtype\s*/(?:Image|Type1C|CIDFontType0C|OpenType|XML)|/Type\s*/(?:XRef|Metadata|EmbeddedFile)|/Length1\b"
)
_FORM = re.compile(rb"/Subtype\s*/Form\b")
_OBJECTS = re.compile(rb"/Type\s*/ObjStm\b")
_STRING = re.compile(rb"\((?:[^()\\]|\\.|\((?:[^()\\]|\\.)*\))*\)|<[0-9A-Fa-f\s]+>", re.DOTALL)
# A character has a code of one byte or two; three bytes of UTF-8 at the most, of which a tokenizer makes fewer tokens.
_TOKENS_PER_BYTE = 2


def document_tokens(file: object, page_tokens: int) -> tuple[int, str | None]:
    """Bound a document: a PDF whose pages have images of at most so many tokens, packed XML (docx, xlsx), or text.

    The second value says why that is no bound, or is None.
    """
    size = decoded_bytes(file)
    if size is None or not isinstance(file, str | bytes | bytearray):
        return 0, "file of unknown size"
    head = content(file, 0, _HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return zipped_tokens(file)
    if (pdf := read_pdf(file)) is not None:
        return pdf.pages * page_tokens + pdf.text_tokens, None
    is_text = b"%PDF-" not in head and b"\0" not in head
    return size + (_TEXT_TOKENS if is_text else DOCUMENT_TOKENS), None


def zipped_tokens(file: Inline) -> tuple[int, str | None]:
    """Bound packed XML, such as docx and xlsx, by what its directory says that it unpacks to."""
    try:
        unpacked = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(content(file))).infolist())
    except Exception:  # noqa: BLE001 - `zipfile` raises what it likes for a file that is none
        return 0, "document of unknown size"
    return unpacked + DOCUMENT_TOKENS, None


@dataclass(frozen=True, slots=True)
class Pdf:
    """At most so many pages, with at most so many tokens of text on all of them together."""

    pages: int
    text_tokens: int


def read_pdf(file: Inline) -> Pdf | None:
    """Read a PDF; None of what is none, is cut or encrypted, or holds text in a form that is not read here."""
    if (decoded_bytes(file) or 0) > _MOST_BYTES or b"%PDF-" not in content(file, 0, _HEAD_BYTES):
        return None
    data = content(file)
    if b"%%EOF" not in data[-_TAIL_BYTES:] or b"/Encrypt" in data:
        return None
    try:
        return _measured(data)
    except (zlib.error, _UnreadError):
        return None


class _UnreadError(Exception):
    """There may be text in a stream that cannot be read here."""


def _measured(data: bytes) -> Pdf | None:
    pages, largest, text, of_forms = 0, 0, 0, 0
    for piece, is_form in _pieces(data):
        pages += len(_PAGE.findall(piece))
        largest = max([largest, *(int(count) for count in _COUNT.findall(piece))])
        if is_form:
            of_forms += _text_tokens(piece)
        else:
            text += _text_tokens(piece)
    pages = max(pages, largest)
    return Pdf(pages, text + of_forms * pages) if pages else None


def _text_tokens(piece: bytes) -> int:
    """Bound the tokens of all strings, in brackets or in hexadecimal, and of a space after each."""
    written = _STRING.findall(piece)
    codes = sum(len(string) // 2 if string.startswith(b"<") else len(string) for string in written)
    return codes * _TOKENS_PER_BYTE + len(written)


def _pieces(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Give what stands between the streams, and the streams that may hold text or objects, unpacked."""
    at, left = 0, _MOST_UNPACKED_BYTES
    while match := _STREAM.search(data, at):
        between = data[at : match.start()]
        yield between, False
        end = data.find(b"endstream", match.end())
        if end < 0:
            raise _UnreadError
        header = between[between.rfind(b"obj") + 3 :]
        if _OBJECTS.search(header) or not _TEXTLESS.search(header):
            unpacked = _unpacked(data[match.end() : end], header, left)
            left -= len(unpacked)
            yield unpacked, _FORM.search(header) is not None
        at = end
    yield data[at:], False


def _unpacked(stream: bytes, header: bytes, most: int) -> bytes:
    named = _FILTER.search(header)
    name = (named[1] or named[2] or b"").strip(b"/ \r\n\t") if named else b""
    if not name:
        return stream
    if name != b"FlateDecode":
        raise _UnreadError
    packed = zlib.decompressobj()
    unpacked = packed.decompress(stream, max(most, 1))
    if not packed.eof:
        raise _UnreadError
    return unpacked
