"""Replicate: predictions, billed by tokens, by pieces or by the time of a machine; most are polled for.

Source: replicate.com/docs, reference of the HTTP API, "predictions.create" and "predictions.get".
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Fetch, Flavour, InputBound, Reader, RequestFacts, ResponseFacts

_LIMITS = ("max_tokens", "max_new_tokens", "max_completion_tokens")
_PIECES: sse.Parts = (
    ("images", (("image_output_count",), ("image_count",))),
    ("video_seconds", (("video_output_duration_seconds",),)),
)
_ENDED = frozenset({"succeeded", "failed", "canceled", "aborted"})


class _Replicate(Flavour):
    """`POST .../predictions`, of a version, of a model or of a deployment."""

    __slots__ = ()
    name = "replicate.predictions"
    vendor = "replicate"
    operation = "generate_content"
    fetchable = True
    path_suffixes: tuple[str, ...] = ("/predictions",)
    asked_keys: frozenset[str] = frozenset({"input"})
    names_model = False

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`. The model stands in the path, or there is only the id of one of its versions."""
        asked = body.get("input")
        limits = [n for key in _LIMITS if (n := sse.count(sse.at(asked, key))) is not None]
        return RequestFacts(
            measure=partial(_input_bound, body),
            model=_model_in(path) or sse.text(body.get("version")),
            max_output_tokens=max(limits, default=None),
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`. A prediction that is not over yet has used nothing that is known."""
        answer = sse.parsed_object(body)
        facts = ResponseFacts(model=sse.text(answer.get("model")), response_id=sse.text(answer.get("id")))
        facts.created = _epoch(answer.get("created_at"))
        status = answer.get("status")
        if isinstance(status, str) and status in _ENDED:
            facts.usage = _usage(answer.get("metrics"))
            facts.finish_reasons = (status,)
        error = answer.get("error") if facts.response_id else sse.error_in(answer) or answer.get("detail")
        facts.error_type, facts.error_message = sse.failure(error)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`: what is streamed comes from another address, and tells nothing of its usage."""
        return self.response(received)


def _input_bound(body: Mapping[str, Any]) -> InputBound:
    tokens, endless = bounds.walk(body, {}, "")
    return tokens + bounds.REQUEST_TOKENS, endless


def _model_in(path: str) -> str | None:
    """Give `owner/name` of `/v1/models/{owner}/{name}/predictions`, and of a deployment's path."""
    parts = path.partition("?")[0].rstrip("/").split("/")
    return "/".join(parts[-3:-1]) if len(parts) > 4 and parts[-4] in ("models", "deployments") else None  # noqa: PLR2004 - as above


def _usage(metrics: Any) -> dict[str, float] | None:
    """Give tokens where both are told, and pieces; seconds of a machine are no unit that is priced here."""
    tokens_in, tokens_out = (sse.count(sse.at(metrics, f"{way}_token_count")) for way in ("input", "output"))
    told: dict[str, float] = {}
    if tokens_in is not None and tokens_out is not None:
        told = {"tokens_in": tokens_in, "tokens_out": tokens_out}
    if isinstance(metrics, dict):
        told |= sse.counts(metrics, _PIECES)
    return told or None


def _epoch(value: object) -> float | None:
    try:
        made = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if made is None else (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()


def _fetched(body: bytes) -> Iterable[ResponseFacts]:
    return (REPLICATE_PREDICTIONS.response(body),)


REPLICATE_PREDICTIONS = _Replicate()
REPLICATE: tuple[Reader, ...] = (REPLICATE_PREDICTIONS,)
REPLICATE_FETCHES: tuple[Fetch, ...] = (Fetch(r".*/v1/predictions/[^/]+/?", REPLICATE_PREDICTIONS, _fetched),)
