"""Google's Gemini API and Vertex AI: answers of Gemini, whole or streamed."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import orjson

from tollspan.instrumentation._readers import _bounds as bounds
from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._facts import Flavour, InputBound, RequestFacts, ResponseFacts
from tollspan.instrumentation._readers._gemini._bounds import content_bound, is_text, units_in
from tollspan.instrumentation._readers._gemini._names import failure, model_in, model_named
from tollspan.instrumentation._readers._gemini._usage import token_usage

_ATTRIBUTES: dict[str, tuple[str, bounds.Converter]] = {
    "candidateCount": ("gen_ai.request.choice.count", bounds.several),
    "frequencyPenalty": ("gen_ai.request.frequency_penalty", bounds.number),
    "maxOutputTokens": ("gen_ai.request.max_tokens", sse.count),
    "presencePenalty": ("gen_ai.request.presence_penalty", bounds.number),
    "seed": ("gen_ai.request.seed", bounds.integer),
    "stopSequences": ("gen_ai.request.stop_sequences", bounds.strings),
    "temperature": ("gen_ai.request.temperature", bounds.number),
    "topK": ("gen_ai.request.top_k", bounds.number),
    "topP": ("gen_ai.request.top_p", bounds.number),
}
_CONFIGS = ("generationConfig", "generation_config")
_LIMITS = ("maxOutputTokens", "max_output_tokens")
# What the caller runs; each other tool of Google's adds to the prompt, or costs by itself.
_OWN_TOOLS = frozenset({"functionDeclarations", "function_declarations", "computerUse", "computer_use"})
_UNBOUNDED = {"cachedContent": "cached content", "cached_content": "cached content"}
_CONTINUED = "continued generation"
_COUNTS = tuple(f"{key}TokenCount" for key in ("prompt", "candidates", "thoughts", "toolUsePrompt", "cachedContent"))
_SPOKEN = {"AUDIO": "tokens_audio_out", "IMAGE": "tokens_image_out", "VIDEO": "tokens_video_out"}
# google.ai.generativelanguage.v1beta.Candidate.FinishReason; its order is the same on Vertex AI.
_REASONS = ("", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")
_TIERS = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}
# Google's page "Gemini Developer API pricing": before Gemini 3, grounding is billed by the prompt, not by the search.
_BILLED_BY_PROMPT = re.compile(r"gemini-(?:1|2)[.-]")


class _GeminiGenerate(Flavour):
    """`POST .../models/{model}:generateContent` and `:streamGenerateContent`."""

    __slots__ = ()
    name = "gemini.generate_content"
    vendor = "gcp.gemini"
    operation = "generate_content"
    asked_keys = frozenset({"contents"})
    names_model = False
    path_suffixes: tuple[str, ...] = (":generateContent", ":streamGenerateContent")

    def request(self, body: Mapping[str, Any], path: str = "") -> RequestFacts:
        """See `Reader.request`."""
        model, config = model_in(path), config_of(body)
        return RequestFacts(
            measure=partial(_input_bound, body, model),
            model=model,
            stream=path.endswith(":streamGenerateContent"),
            max_output_tokens=limit_in(config),
            choices=sse.count(config.get("candidateCount")) or 1,
            service_tier=_asked_tier(body),
            attributes=config_attributes(config),
            find_units=partial(_units, body, config),
            is_text=partial(is_text, body),
            limitable=True,
        )

    def response(self, body: bytes) -> ResponseFacts:
        """See `Reader.response`."""
        answer = sse.parsed_object(body)
        facts = _facts([answer])
        facts.usage = grounded_usage([answer], answer.get("usageMetadata"), facts.model)
        facts.error_type, facts.error_message = failure(answer)
        return facts

    def stream(self, received: bytes) -> ResponseFacts:
        """See `Reader.stream`. Each event counts what was used until then; the last one says why the answer ended.

        What is counted before that is no usage yet, but tells thoughts that nobody sees.
        """
        if sse.is_whole(received):
            return self.response(received)
        stream = _array_as_events(received) if received.lstrip().startswith(b"[") else sse.normal(received)
        ends = list(sse.newest(stream, b'"finishReason"'))
        last = next(sse.newest(stream, b'"usageMetadata"'), {})
        facts = _facts([*reversed(ends), next(sse.newest(stream, b'"candidates"'), {}), last])
        facts.complete = _is_ended(stream)
        if facts.complete:
            searched = sse.newest(stream, b'"groundingMetadata"')
            facts.usage = grounded_usage(searched, _counted(stream, last.get("usageMetadata")), facts.model)
        if facts.usage is None:
            facts.visible_output_bytes = _seen(stream, last.get("usageMetadata"))
        errors = (event for event in sse.newest(stream, b'"error"', start=-sse.TAIL_BYTES) if event.get("error"))
        facts.error_type, facts.error_message = failure(next(errors, {}))
        return facts

    def is_complete(self, tail: bytes) -> bool:
        """See `Reader.is_complete`: the last event with candidates says of each why it ended."""
        return _is_ended(sse.normal(tail))

    def with_output_limit(self, arguments: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """See `Reader.with_output_limit`. Thoughts count in it, too."""
        name = next((name for name in _CONFIGS if isinstance(arguments.get(name), Mapping)), _CONFIGS[0])
        config = arguments.get(name)
        given = config if isinstance(config, Mapping) else {}
        key = next((key for key in _LIMITS if sse.count(given.get(key)) is not None), _LIMITS[0])
        return {name: {**given, key: bounds.limited(given, key, tokens)}}


GEMINI_GENERATE = _GeminiGenerate()


def _input_bound(body: Mapping[str, Any], model: str | None) -> InputBound:
    config = config_of(body)
    schema = any(key in config for key in ("responseSchema", "responseJsonSchema"))
    tokens, endless = content_bound(body, "contents", model, tools=bool(body.get("tools")) or schema)
    return tokens, _unbounded(body, config) or endless


def _unbounded(body: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    for tool in _listed(body.get("tools")):
        for kind in tool if isinstance(tool, dict) else ():
            if kind not in _OWN_TOOLS and tool[kind] is not None:
                return f"hosted tool {str(kind)[:64]}"
    if config.get("continuationToken") or body.get("continuationToken"):
        return _CONTINUED
    return bounds.given(body, _UNBOUNDED)


def config_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the settings of a generation that a request has, or none."""
    return next((config for key in _CONFIGS if isinstance(config := body.get(key), Mapping)), {})


def limit_in(config: Mapping[str, Any]) -> int | None:
    """Give the most output tokens that a caller asks for, thoughts among them."""
    return next((limit for key in _LIMITS if (limit := sse.count(config.get(key))) is not None), None)


def _asked_tier(body: Mapping[str, Any]) -> str | None:
    tier = sse.text(body.get("serviceTier"))
    return tier.lower().removeprefix("service_tier_") if tier else None


def _units(body: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    return (*units_in(body), *made_units(config))


def made_units(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what an answer is asked to have besides text: not every model has a price for it."""
    wanted = bounds.strings(config.get("responseModalities")) or ()
    return tuple(unit for kind, unit in _SPOKEN.items() if kind in wanted)


def config_attributes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the span attributes of a generation's settings."""
    return bounds.attributes(config, _ATTRIBUTES)


def _facts(answers: list[dict[str, Any]]) -> ResponseFacts:
    """Take all but usage and errors from the events of an answer that tell it, of which later ones win."""
    facts, reasons = ResponseFacts(), dict[int, str]()
    for answer in answers:
        facts.model = model_named(answer) or facts.model
        facts.response_id = sse.text(answer.get("responseId")) or facts.response_id
        facts.service_tier = tier_of(answer.get("usageMetadata")) or facts.service_tier
        for position, candidate in enumerate(_candidates(answer)):
            if reason := _reason(candidate.get("finishReason")):
                index = sse.count(candidate.get("index"))
                reasons[position if index is None else index] = reason
        if blocked := sse.text(sse.at(answer, "promptFeedback", "blockReason")):
            reasons.setdefault(0, blocked)
    facts.finish_reasons = tuple(reasons[index] for index in sorted(reasons))
    return facts


def tier_of(usage: Any) -> str | None:
    """Give the tier that an answer was billed at: Gemini has a name for it, Vertex AI a kind of traffic."""
    kind = sse.text(sse.at(usage, "trafficType"))
    return _TIERS.get(kind) if kind in _TIERS else sse.text(sse.at(usage, "serviceTier"))


def _reason(value: object) -> str | None:
    if type(value) is int:
        return _REASONS[value] if 0 <= value < len(_REASONS) else str(value)
    return sse.text(value)


def grounded_usage(searched: Iterator[dict[str, Any]] | list[dict[str, Any]], raw: object, model: str | None) -> Any:
    """Give the usage, with the web searches that the candidates tell of."""
    usage = token_usage(raw)
    if usage is None:
        return None
    queries = {query for answer in searched for candidate in _candidates(answer) for query in _queries(candidate)}
    if queries:
        by_prompt = model is not None and _BILLED_BY_PROMPT.match(model)
        usage["web_searches"] = 1 if by_prompt else len(queries)
    return usage


def _counted(stream: bytes, last: object) -> object:
    """Give the counts of the last event, with those that only earlier ones have: then the total has them not, either.

    Gemini 3 leaves the tokens of its answer out of an event that only brings what it found on the web.
    """
    if not isinstance(last, dict):
        return last
    counts = dict(last)
    for key in _COUNTS:
        needle = f'"{key}"'.encode()
        earlier = next(sse.newest(stream, needle), {}).get("usageMetadata") if key not in counts else None
        if isinstance(earlier, dict) and key in earlier:
            counts = {**earlier, **counts}
            counts.pop("totalTokenCount", None)
    return counts


def _queries(candidate: Mapping[str, Any]) -> list[str]:
    return [query for query in _listed(sse.at(candidate, "groundingMetadata", "webSearchQueries")) if sse.text(query)]


def _is_ended(stream: bytes) -> bool:
    """Tell whether the last event that says anything of the answer is its last: it tells why each candidate ended."""
    for event in sse.newest(stream, b'"usageMetadata"'):
        if sse.at(event, "promptFeedback", "blockReason"):
            return True
        candidates = _candidates(event) or _candidates(next(sse.newest(stream, b'"candidates"'), {}))
        return bool(candidates) and all(_reason(one.get("finishReason")) for one in candidates)
    return False


def _seen(stream: bytes, counted: object) -> int:
    """Bound the output tokens of a stream that was cut: what is visible, and what was counted besides."""
    usage = token_usage(counted) or {}
    parts = [part for event in sse.events(stream) for one in _candidates(event) for part in _parts(one)]
    said = sum(_visible(part) for part in parts if not part.get("thought"))
    thought = sum(_visible(part) for part in parts if part.get("thought"))
    return max(said + max(thought, int(usage.get("tokens_reasoning", 0))), int(usage.get("tokens_out", 0)))


def _visible(part: Mapping[str, Any]) -> int:
    size = sse.spoken_bytes(part.get("text")) + sse.spoken_bytes(sse.at(part, "executableCode", "code"))
    call = part.get("functionCall")
    return size + (len(orjson.dumps(call)) if isinstance(call, dict) else 0)


def _parts(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [part for part in _listed(sse.at(candidate, "content", "parts")) if isinstance(part, dict)]


def _candidates(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [candidate for candidate in _listed(answer.get("candidates")) if isinstance(candidate, dict)]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _array_as_events(received: bytes) -> bytes:
    """Give the objects of a JSON array as events: a stream without `alt=sse` is one. What is cut is left out."""
    text, decoder, events = received.decode("utf-8", "replace"), json.JSONDecoder(), []
    at = text.find("{")
    try:
        while at >= 0:
            value, end = decoder.raw_decode(text, at)
            events.append(b"data: " + orjson.dumps(value))
            at = text.find("{", end)
    except (ValueError, RecursionError, orjson.JSONEncodeError):
        pass
    return b"\n\n".join([*events, b""])
