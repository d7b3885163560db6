"""What providers and models are called: by OpenTelemetry, by APIs and consoles, and in the lists of prices."""

import re
from collections.abc import Container

# OpenTelemetry's `gen_ai.provider.name`, and what older conventions and gateways called it, to the provider ids of
# genai-prices. Any other name has to be such an id itself, or the one under which `extras.json` has the provider.
_PROVIDER_IDS = {
    "alibaba": "dashscope",
    "aws.bedrock": "aws",
    "aws_bedrock": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure_ai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "converse": "aws",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "qwen": "dashscope",
    "together_ai": "together",
    "vertex_ai": "google",
    "voyage": "voyageai",
    "voyage_ai": "voyageai",
    "watsonx": "ibm.watsonx.ai",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "z_ai": "zai",
    "zhipu": "zhipuai",
    "zhipu_ai": "zhipuai",
}
# Where a name of an API or of a console carries its path: `models/x`, `projects/../publishers/google/models/x`, an ARN.
_PATH_PREFIX = re.compile(r"^(?:(?:.*/)?publishers/[^/]+/models/|models/|arn:.*/)", re.IGNORECASE)
# `ft:<base>:<organisation>:<suffix>:<id>` is priced as any fine-tune of its base (OpenAI, "Fine-tuning").
_FINE_TUNE = re.compile(r"(ft:[^:]+):.*")
# `accounts/fireworks/models/x#accounts/me/deployments/y` is x on hardware of one's own.
_ON_DEPLOYMENT = re.compile(r"#accounts/.*$")
_DATE = re.compile(r"[-@](?:20\d\d-\d\d-\d\d|20\d{6})$|[-@:]latest$|@default$")


def provider_id_of(provider: str | None) -> str | None:
    if provider is None:
        return None
    name = provider.strip().lower()
    return _PROVIDER_IDS.get(name, name)


STANDARD_TIER = "standard"
"""The service tier that list prices are for, whatever a vendor calls it."""
# Groq: "on_demand"; Anthropic: "standard_only".
_STANDARD_TIERS = frozenset({"", "auto", "default", "on_demand", STANDARD_TIER, "standard_only"})


def tier_of(name: str | None) -> str:
    """The service tier that a name stands for; that of who asks for none is the standard one."""
    tier = (name or "").strip().lower()
    return STANDARD_TIER if tier in _STANDARD_TIERS else tier


def names_of(model: str, provider: str | None, provider_id: str | None) -> tuple[str, ...]:
    """List the names to look a model up by, most exact first.

    That is without its path; then without its provider's own prefix, in any spelling, as well; and for a fine-tune of
    OpenAI's last without what its owner called it.
    """
    name = _ON_DEPLOYMENT.sub("", _PATH_PREFIX.sub("", model.strip()))
    names = [name]
    first, _, rest = name.partition("/")
    if (rest and provider_id is not None and first.lower() in (provider_id, (provider or "").lower())) or (
        rest and provider_id is not None and provider_id_of(first) == provider_id
    ):
        names.append(rest)
    if tuned := _FINE_TUNE.fullmatch(names[-1]):
        names.append(tuned[1])
    return tuple(names)


def undated(name: str) -> str | None:
    """The name of a model without the date of its snapshot, or without `latest`; None where it has neither."""
    plain = _DATE.sub("", name)
    return plain if plain != name else None


def split_target(target: str, provider: str | None, known_ids: Container[str]) -> tuple[str | None, str]:
    """The provider and the model that an alias names: what is before its first slash, where that is a provider."""
    before, slash, rest = target.partition("/")
    if slash and rest and (before.lower() in _PROVIDER_IDS or provider_id_of(before) in known_ids):
        return before, rest
    return provider, target
