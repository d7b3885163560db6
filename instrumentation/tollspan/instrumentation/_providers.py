"""Which provider answers at a host, in OpenTelemetry's spelling of `gen_ai.provider.name`."""

import re
from collections.abc import Mapping
from functools import lru_cache

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


def provider_at(host: str, port: int | None, vendor: str, configured: Mapping[str, str]) -> str:
    """The provider at a host: the configured one, a well-known one, or else the vendor whose API flavour it speaks.

    An unknown host that speaks a vendor's flavour is most often a gateway to that vendor. Where it is not,
    TOLLSPAN_PROVIDERS says so.
    """
    host = host.lower()
    return configured.get(f"{host}:{port}") or configured.get(host) or _well_known(host) or vendor


@lru_cache(maxsize=1024)
def _well_known(host: str) -> str | None:
    return next((name for pattern, name in _HOSTS if re.fullmatch(pattern, host)), None)
