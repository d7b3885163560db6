"""Names in Google's APIs: of models, in paths and in answers, and of errors."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tollspan.instrumentation._readers import _sse as sse

_MODEL = re.compile(r"/(?:models/([^/:]+)|((?:endpoints|tunedModels)/[^/:]+))(?::|$)")


@lru_cache(maxsize=512)
def model_in(path: str) -> str | None:
    """Give the model that a URL path of Google's names; of a tuned one or an endpoint, with what it is."""
    found = _MODEL.search(path)
    return found and (found[1] or found[2])


def model_named(answer: Mapping[str, Any]) -> str | None:
    """Give the model that an answer names, without the collections that it may be in."""
    name = sse.text(answer.get("modelVersion"))
    return name.rpartition("models/")[2] or None if name else None


def failure(answer: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Give type and message of an error of Google's: the status has the name of what the code is the number of."""
    error = sse.error_in(answer)
    status = sse.text(sse.at(error, "status"))
    return sse.failure({**error, "type": status} if status and isinstance(error, dict) else error)
