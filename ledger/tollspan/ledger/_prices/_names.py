"""What providers and models are called: by OpenTelemetry, by APIs and consoles, and in the lists of prices."""

import re
from collections.abc import Container

# OpenTelemetry's `gen_ai.provider.name`, and what older conventions called it, to the provider ids of genai-prices.
# Any other name has to be such an id itself.
_PROVIDER_IDS = {
    "aws.bedrock": "aws",
    "aws_bedrock": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "vertex_ai": "google",
    "voyage_ai": "voyageai",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "z_ai": "zai",
    "zhipu": "zhipuai",
    "zhipu_ai": "zhipuai",
}
# Where a name of an API or of a console carries its path: `models/x`, `projects/../publishers/google/models/x`, an ARN.
_PATH_PREFIX = re.compile(r"^(?:(?:.*/)?publishers/[^/]+/models/|models/|arn:.*/)", re.IGNORECASE)


def provider_id_of(provider: str | None) -> str | None:
    if provider is None:
        return None
    name = provider.strip().lower()
    return _PROVIDER_IDS.get(name, name)


def names_of(model: str, provider: str | None, provider_id: str | None) -> tuple[str, ...]:
    """List the names to look a model up by: without its path, then without its provider's own prefix as well."""
    name = _PATH_PREFIX.sub("", model.strip())
    for prefix in (provider, provider_id):
        if prefix and name.lower().startswith(f"{prefix.lower()}/"):
            return (name, name[len(prefix) + 1 :])
    return (name,)


def split_target(target: str, provider: str | None, known_ids: Container[str]) -> tuple[str | None, str]:
    """The provider and the model that an alias names: what is before its first slash, where that is a provider."""
    before, slash, rest = target.partition("/")
    if slash and rest and (before.lower() in _PROVIDER_IDS or provider_id_of(before) in known_ids):
        return before, rest
    return provider, target
