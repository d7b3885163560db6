"""URLs of libraries that have them as text, in the shape in which httpx has them."""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit


class Url(NamedTuple):
    """A URL as far as it matters here."""

    scheme: str
    host: str
    port: int | None
    path: str


@lru_cache(maxsize=1024)
def parsed_url(text: str) -> Url:
    """Read a URL; one that is none has no host."""
    try:
        parts = urlsplit(text)
        return Url(parts.scheme, parts.hostname or "", parts.port, parts.path)
    except ValueError:  # a port that is no number, a bracket that is not closed
        return Url("", "", None, "")
