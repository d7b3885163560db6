"""Which provider answers at a host, in OpenTelemetry's spelling of `gen_ai.provider.name`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# Names of OpenTelemetry's registry where it has one, else those by which genai-prices lists the provider's prices. What
# passes requests on to others in their own flavours, such as Cloudflare's AI Gateway, is none: see `_provider_at`.
_HOSTS = (
    (r"(?:[a-z]+\.)?api\.openai\.com", "openai"),
    (r"api\.anthropic\.com", "anthropic"),
    (r".*\.(?:openai|cognitiveservices)\.azure\.(?:com|us|cn)|.*\.azure-api\.(?:net|us|cn)", "azure.ai.openai"),
    (r"models\.github\.ai|models\.inference\.ai\.azure\.com", "github"),
    (
        r".*\.(?:services|inference|models)\.ai\.azure\.(?:com|us)|.*\.inference\.ml\.azure\.com",
        "azure.ai.inference",
    ),
    (r"(?:.*\.)?bedrock-(?:runtime|mantle)(?:-fips)?\..*\.(?:amazonaws\.com(?:\.cn)?|api\.aws)", "aws.bedrock"),
    (r"aws-external-anthropic\..*\.api\.aws", "aws.bedrock"),
    (r"claude\.googleapis\.com", "gcp.vertex_ai"),
    (r"generativelanguage\.googleapis\.com", "gcp.gemini"),
    (r"(?:.*-)?aiplatform\.(?:.*\.rep\.)?googleapis\.com", "gcp.vertex_ai"),
    (r".*\.ml\.cloud\.ibm\.com", "ibm.watsonx.ai"),
    (r"(?:.*\.)?openrouter\.ai", "openrouter"),
    (r"api\.deepseek\.com", "deepseek"),
    (r"(?:.*\.)?api\.x\.ai", "x_ai"),
    (r"api\.groq\.com", "groq"),
    (r"(?:api|codestral)\.mistral\.ai", "mistral_ai"),
    (r"api\.moonshot\.(?:ai|cn)|api\.kimi\.com", "moonshot_ai"),
    (r"api\.perplexity\.ai", "perplexity"),
    (r"api(?:-inference)?\.together\.(?:xyz|ai)", "together"),
    (r"(?:.*\.)?api\.fireworks\.ai", "fireworks"),
    (r"api\.cerebras\.ai", "cerebras"),
    (r"(?:.*\.)?api\.cohere\.(?:ai|com)", "cohere"),
    (r"(?:.*\.)?dashscope(?:-[a-z]+)?\.aliyuncs\.com|.*\.maas\.aliyuncs\.com", "dashscope"),
    (r"api\.z\.ai", "zai"),
    (r"open\.bigmodel\.cn", "zhipuai"),
    (r"(?:router|api-inference)\.huggingface\.co|.*\.huggingface\.cloud", "huggingface"),
    (r".*\.snowflakecomputing\.(?:com|cn)", "snowflake"),
    (r".*\.(?:(?:gcp|cloud)\.databricks\.(?:com|us)|azuredatabricks\.net)", "databricks"),
    (r"api\.cloudflare\.com", "cloudflare"),
    (r"ai-gateway\.vercel\.sh", "vercel"),
    (r"(?:.*\.)?api\.sambanova\.ai", "sambanova"),
    (r"api\.(?:.*\.)?nebius\.(?:com|ai|cloud)", "nebius"),
    (r"api\.novita\.ai", "novita"),
    (r"api\.hyperbolic\.(?:xyz|ai)", "hyperbolic"),
    (r"api\.deepinfra\.com", "deepinfra"),
    (r".*\.baseten\.co", "baseten"),
    (r".*\.modal\.(?:run|direct)", "modal"),
    (r".*\.ai\.cloud\.ovh\.net", "ovhcloud"),
    (r"api\.arcee\.ai", "arcee"),
    (r"api\.avian\.io", "avian"),
    (r"api\.doubleword\.ai", "doubleword"),
    (r"api\.elevenlabs\.io", "elevenlabs"),
    (r"api\.githubcopilot\.com", "github-copilot"),
    (r"api\.minimaxi?\.(?:com|io)", "minimax"),
    (r"api\.meta\.ai|api\.llama\.com", "meta"),
    (r"integrate\.api\.nvidia\.com", "nvidia"),
    (r"api\.ai21\.com", "ai21"),
    (r"api\.voyageai\.com", "voyageai"),
    (r"api\.replicate\.com", "replicate"),
    (r"api\.writer\.com", "writer"),
    (r"(?:.*\.)?inference\.heroku\.com", "heroku"),
    (r"(?:.*\.)?ollama\.com", "ollama"),
    (r"api\.siliconflow\.(?:com|cn)", "siliconflow"),
    (r"ark\..*\.(?:volces|bytepluses)\.com", "volcengine"),
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
