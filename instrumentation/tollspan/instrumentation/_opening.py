"""Opening a call, whatever has seen that there is one: a method of an SDK, a request, or a message on a websocket."""

from collections.abc import Mapping
from typing import Any

from tollspan.exporter import pipeline
from tollspan.ledger import internal_errors

from ._call import Call
from ._readers import Reader


def open_call(
    reader: Reader, url: Any, arguments: Mapping[str, Any], path: str, *, vendor: str | None, changeable: bool
) -> Call | None:
    """A new call to the host of `url`; None where something of ours went wrong: then the SDK works as without us."""
    with internal_errors:
        return Call(pipeline(), reader, url, reader.request(arguments, path), vendor=vendor, changeable=changeable)
    return None
