"""Who answers is told from the host, in OpenTelemetry's spelling where it has one."""

import pytest

from tollspan.instrumentation._providers import origin_of
from tollspan.instrumentation._urls import parsed_url
from tollspan.ledger import PriceBook, RateCard

HOSTS = {
    "api.openai.com": "openai",
    "eu.api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "my-resource.openai.azure.com": "azure.ai.openai",
    "my-resource.openai.azure.us": "azure.ai.openai",
    "my-resource.cognitiveservices.azure.com": "azure.ai.openai",
    "my-gateway.azure-api.net": "azure.ai.openai",
    "my-resource.services.ai.azure.com": "azure.ai.inference",
    "my-model.eastus.models.ai.azure.com": "azure.ai.inference",
    "my-endpoint.eastus.inference.ml.azure.com": "azure.ai.inference",
    "models.github.ai": "github",
    "models.inference.ai.azure.com": "github",
    "bedrock-runtime.us-east-1.amazonaws.com": "aws.bedrock",
    "bedrock-runtime-fips.us-east-1.amazonaws.com": "aws.bedrock",
    "bedrock-mantle.us-east-1.api.aws": "aws.bedrock",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "us-central1-aiplatform.googleapis.com": "gcp.vertex_ai",
    "aiplatform.us.rep.googleapis.com": "gcp.vertex_ai",
    "us-south.ml.cloud.ibm.com": "ibm.watsonx.ai",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x_ai",
    "us-east-1.api.x.ai": "x_ai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "codestral.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
    "api.cohere.com": "cohere",
    "dashscope.aliyuncs.com": "dashscope",
    "dashscope-intl.aliyuncs.com": "dashscope",
    "cn-hongkong.dashscope.aliyuncs.com": "dashscope",
    "api.z.ai": "zai",
    "open.bigmodel.cn": "zhipuai",
    "router.huggingface.co": "huggingface",
    "my-account.snowflakecomputing.com": "snowflake",
    "dbc-1.cloud.databricks.com": "databricks",
    "adb-1.2.azuredatabricks.net": "databricks",
    "api.cloudflare.com": "cloudflare",
    "ai-gateway.vercel.sh": "vercel",
    "api.sambanova.ai": "sambanova",
    "api.studio.nebius.com": "nebius",
    "api.tokenfactory.nebius.com": "nebius",
    "api.novita.ai": "novita",
    "api.hyperbolic.xyz": "hyperbolic",
    "api.deepinfra.com": "deepinfra",
    "inference.baseten.co": "baseten",
    "model-x.api.baseten.co": "baseten",
    "api.minimax.io": "minimax",
    "oai.endpoints.kepler.ai.cloud.ovh.net": "ovhcloud",
    "us.inference.heroku.com": "heroku",
}
# Servers of one's own, and gateways that pass requests on in the flavour of whom they pass them to.
UNKNOWN = [
    "localhost",
    "127.0.0.1",
    "vllm.internal",
    "gateway.ai.cloudflare.com",
    "litellm.example.com",
    "api.openai.co",
]
PRICED = {
    "azure.ai.openai": "gpt-4o-mini",
    "cerebras": "gpt-oss-120b",
    "deepseek": "deepseek-chat",
    "groq": "llama-3.3-70b-versatile",
    "mistral_ai": "mistral-small-latest",
    "moonshot_ai": "kimi-k2-0905-preview",
    "openrouter": "openai/gpt-4o-mini",
    "perplexity": "sonar",
    "together": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "x_ai": "grok-4",
    "zai": "glm-4.6",
}


def provider_of(address, vendor="openai", configured=None):
    """Who answers at an address."""
    return origin_of(parsed_url(address), vendor, configured or {}).provider


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_tells_its_provider(host):
    """Whatever the SDK, the port, and the case of its letters."""
    assert provider_of(f"https://{host}/v1", vendor="groq") == HOSTS[host]
    assert provider_of(f"https://{host.upper()}:8443/v1", vendor="groq") == HOSTS[host]


@pytest.mark.parametrize("host", UNKNOWN)
def test_an_unknown_host_is_taken_for_the_vendor_of_the_flavour(host):
    """Most often it is a gateway to that one."""
    assert provider_of(f"http://{host}:8000/v1", vendor="anthropic") == "anthropic"


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_that_only_resembles_one_is_another(host):
    """The whole host is looked at: anybody can have a name that begins or ends like a provider's."""
    assert provider_of(f"https://{host}.example.com/v1", vendor="v") == "v"
    assert provider_of(f"https://x{host.replace('.', '-')}/v1", vendor="v") == "v"


def test_the_configuration_goes_before():
    """TOLLSPAN_PROVIDERS names a host, or one of its ports."""
    configured = {"localhost:8000": "vllm", "localhost": "ollama", "api.openai.com": "mine"}
    assert provider_of("http://localhost:8000/v1", configured=configured) == "vllm"
    assert provider_of("http://localhost:8001/v1", configured=configured) == "ollama"
    assert provider_of("https://api.openai.com/v1", configured=configured) == "mine"


@pytest.mark.parametrize("provider", PRICED)
def test_a_name_finds_the_prices_of_its_provider(provider):
    """The names given to hosts are those under which prices are looked up."""
    assert provider in HOSTS.values()
    card = PriceBook().resolve(provider=provider, model=PRICED[provider], at=1_790_000_000)
    assert isinstance(card, RateCard), card
