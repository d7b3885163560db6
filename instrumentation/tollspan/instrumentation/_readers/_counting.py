"""How providers count the input of a request before it is made: free of charge, by an endpoint of their own.

Sources: Anthropic's guide "Token counting", OpenAI's API reference "Get input token counts", Google's API references
`models.countTokens` (Gemini) and `projects.locations.publishers.models.countTokens` (Vertex AI).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tollspan.instrumentation._readers import _sse as sse
from tollspan.instrumentation._readers._bounds import SEEN_BY_COUNTING
from tollspan.instrumentation._readers._facts import Reader, RequestFacts

# Anthropic calls its count an estimate that may differ by a small amount; seven recorded counts were exact.
_MARGIN_TOKENS, _TOKENS_PER_MARGIN = 64, 50


@dataclass(frozen=True, slots=True)
class Count:
    """The endpoint that counts a flavour's requests at `providers`.

    `path` gives its URL path from that of a request, None where that one cannot be counted; `body` its body from the
    request's body and path. The answer has the count under `told`. What stands under `held` in a request is state of
    the server's that is counted too.
    """

    providers: frozenset[str]
    path: Callable[[str], str | None]
    body: Callable[[Mapping[str, Any], str], dict[str, Any]]
    told: str
    held: frozenset[str] = frozenset()

    def tokens(self, answer: bytes) -> int | None:
        """Read the count from an answer; None where there is none."""
        return sse.count(sse.parsed_object(answer).get(self.told))

    def apply(self, tokens: int, facts: RequestFacts, reader: Reader, body: Mapping[str, Any], path: str) -> None:
        """Make the count the bound of a request's input, with a margin: where it is lower, or where there is none."""
        counted = tokens + tokens // _TOKENS_PER_MARGIN + _MARGIN_TOKENS
        reason = facts.unbounded
        if reason is not None:
            rest = {key: value for key, value in body.items() if key not in self.held}
            reason = reader.request(rest, path).unbounded
        if reason is None and facts.unbounded is None:
            facts.bound_input(min(counted, facts.input_tokens_bound))
        elif reason is None or reason in SEEN_BY_COUNTING:
            facts.bound_input(counted)
        else:
            facts.bound_input(facts.input_tokens_bound, reason)


def _only(*keys: str) -> Callable[[Mapping[str, Any], str], dict[str, Any]]:
    """Take these fields of a request: the endpoint refuses what it does not know."""
    return lambda body, _path: {key: body[key] for key in keys if body.get(key) is not None}


def _after(end: str, more: str) -> Callable[[str], str | None]:
    return lambda path: f"{path.rstrip('/')}{more}" if path.rstrip("/").endswith(end) else None


def _google_path(path: str) -> str | None:
    model, _, method = path.rpartition(":")
    return f"{model}:countTokens" if method in ("generateContent", "streamGenerateContent") else None


def _google_body(body: Mapping[str, Any], path: str) -> dict[str, Any]:
    if "/publishers/" in path or "/endpoints/" in path:  # Vertex AI
        return _of_vertex(body, path)
    name = path.rpartition(":")[0].partition("/models/")[2]
    return {"generateContentRequest": {**body, "model": f"models/{name}"}}


_of_vertex = _only(
    "contents", "systemInstruction", "system_instruction", "tools", "generationConfig", "generation_config"
)
COUNTS: Mapping[str, Count] = {
    "anthropic.messages": Count(
        frozenset({"anthropic"}),
        _after("/v1/messages", "/count_tokens"),
        _only(
            "messages", "model", "system", "tools", "tool_choice", "thinking", "cache_control", "output_config",
            "output_format", "context_management", "mcp_servers",
        ),
        "input_tokens",
    ),
    "openai.responses": Count(
        frozenset({"openai"}),
        _after("/responses", "/input_tokens"),
        _only(
            "model", "input", "instructions", "previous_response_id", "tools", "tool_choice", "parallel_tool_calls",
            "reasoning", "text", "truncation",
        ),
        "input_tokens",
        frozenset({"previous_response_id"}),
    ),
    "gemini.generate_content": Count(
        frozenset({"gcp.gemini", "gcp.vertex_ai"}),
        _google_path,
        _google_body,
        "totalTokens",
    ),
}  # fmt: skip
"""By the name of the flavour."""
