"""Which provider answers at a host, in OpenTelemetry's spelling of `gen_ai.provider.name`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_HOSTS = (
    (r"api\.openai\.com", "openai"),
    (r"api\.anthropic\.com", "anthropic"),
    (r".*\.openai\.azure\.com|.*\.cognitiveservices\.azure\.com|.*\.azure-api\.net", "azure.ai.openai"),
    (r".*\.services\.ai\.azure\.com|.*\.inference\.ai\.azure\.com", "azure.ai.inference"),
    (r"bedrock-(?:runtime|mantle)\..*\.amazonaws\.com|bedrock-mantle\..*\.api\.aws", "aws.bedrock"),
    (r"generativelanguage\.googleapis\.com", "gcp.gemini"),
    (r"(?:.*-)?aiplatform\.googleapis\.com", "gcp.vertex_ai"),
    (r"openrouter\.ai", "openrouter"),
    (r"api\.deepseek\.com", "deepseek"),
    (r"api\.x\.ai", "x_ai"),
    (r"api\.groq\.com", "groq"),
    (r"api\.mistral\.ai", "mistral_ai"),
    (r"api\.moonshot\.(?:ai|cn)", "moonshot_ai"),
    (r"api\.perplexity\.ai", "perplexity"),
    (r"api\.together\.(?:xyz|ai)", "together"),
    (r"api\.fireworks\.ai", "fireworks"),
    (r"api\.cerebras\.ai", "cerebras"),
    (r"api\.cohere\.(?:ai|com)", "cohere"),
    (r"dashscope(?:-intl|-us)?\.aliyuncs\.com", "dashscope"),
    (r"api\.z\.ai", "zai"),
    (r"open\.bigmodel\.cn", "zhipuai"),
    (r"router\.huggingface\.co|.*\.huggingface\.cloud", "huggingface"),
)


_MOST_ORIGINS = 256
_origins: dict[tuple[int, str], tuple[Any, Mapping[str, str], "Origin"]] = {}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: the host and its port, their URL (without a path, which may hold a key), and who answers."""

    host: str
    port: int | None
    url: str
    provider: str


def origin_of(url: Any, vendor: str, configured: Mapping[str, str]) -> Origin:
    """The origin of an httpx URL. A client keeps one URL object, so the last answer for an object is kept with it."""
    key = (id(url), vendor)
    known = _origins.get(key)
    if known is not None and known[0] is url and known[1] is configured:
        return known[2]
    host, port = url.host.lower(), url.port
    origin = Origin(host, port, f"{url.scheme}://{host}", _provider_at(host, port, vendor, configured))
    if len(_origins) >= _MOST_ORIGINS:
        _origins.clear()
    _origins[key] = (url, configured, origin)
    return origin


def _provider_at(host: str, port: int | None, vendor: str, configured: Mapping[str, str]) -> str:
    """The provider at a host: the configured one, a well-known one, or else the vendor whose API flavour it speaks.

    An unknown host that speaks a vendor's flavour is most often a gateway to that vendor. Where it is not,
    TOLLSPAN_PROVIDERS says so.
    """
    return configured.get(f"{host}:{port}") or configured.get(host) or _well_known(host) or vendor


@lru_cache(maxsize=1024)
def _well_known(host: str) -> str | None:
    return next((name for pattern, name in _HOSTS if re.fullmatch(pattern, host)), None)
