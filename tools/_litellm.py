"""litellm's map of models (MIT), read in the words of the price room: `model_prices_and_context_window.json`."""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

# Whose list an entry of litellm is from, as the ids of genai-prices and of the hosts that tollspan knows. What only the
# gateway itself sells, and what tollspan has no host and no reader for, is left out.
PROVIDERS = {
    "ai21": "ai21", "anthropic": "anthropic", "azure": "azure", "azure_ai": "azure", "bedrock": "aws",
    "bedrock_converse": "aws", "bedrock_mantle": "aws", "cerebras": "cerebras", "cohere": "cohere",
    "cohere_chat": "cohere", "dashscope": "dashscope", "databricks": "databricks", "deepinfra": "deepinfra",
    "deepseek": "deepseek", "fireworks_ai": "fireworks", "fireworks_ai-embedding-models": "fireworks",
    "gemini": "google", "groq": "groq", "heroku": "heroku", "hyperbolic": "hyperbolic", "meta_llama": "meta",
    "minimax": "minimax", "mistral": "mistral", "moonshot": "moonshotai", "nebius": "nebius", "novita": "novita",
    "openrouter": "openrouter",
    "openai": "openai", "ovhcloud": "ovhcloud", "perplexity": "perplexity", "replicate": "replicate",
    "sambanova": "sambanova", "snowflake": "snowflake", "text-completion-openai": "openai", "together_ai": "together",
    "vertex_ai": "google", "volcengine": "volcengine", "voyage": "voyageai", "watsonx": "ibm.watsonx.ai",
    "xai": "x-ai", "zai": "zai",
}  # fmt: skip
# Singapore's prices at Alibaba, where they are not those of Beijing.
_SINGAPORE = "qwencloud"
_VERTEX = re.compile(r"vertex_ai(-[a-z0-9_]+[-_]models)?")

_MTOK, _K, _HOUR = Decimal(10**6), Decimal(1000), Decimal(3600)
_TOKENS = {
    "input_cost_per_token": "input_mtok",
    "output_cost_per_token": "output_mtok",
    "output_cost_per_reasoning_token": "output_reasoning_mtok",
    "cache_read_input_token_cost": "cache_read_mtok",
    "cache_creation_input_token_cost": "cache_write_mtok",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_mtok",
    "input_cost_per_audio_token": "input_audio_mtok",
    "output_cost_per_audio_token": "output_audio_mtok",
    "cache_read_input_audio_token_cost": "cache_audio_read_mtok",
    "input_cost_per_image_token": "input_image_mtok",
    "output_cost_per_image_token": "output_image_mtok",
    "cache_read_input_image_token_cost": "cache_image_read_mtok",
    "input_cost_per_video_token": "input_video_mtok",
    "output_cost_per_video_token": "output_video_mtok",
}
# What a key means depends on what the model is for.
_PIECES = {
    "audio_speech": {"input_cost_per_character": ("input_mchars", _MTOK)},
    "audio_transcription": {"input_cost_per_second": ("audio_hours", _HOUR)},
    "embedding": {"input_cost_per_image": ("images_kcount", _K)},
    "image_edit": {"output_cost_per_image": ("images_kcount", _K)},
    "image_generation": {
        "input_cost_per_image": ("images_kcount", _K),
        "output_cost_per_image": ("images_kcount", _K),
    },
    "ocr": {
        "annotation_cost_per_page": ("input_annotated_document_kpages", _K),
        "ocr_cost_per_page": ("input_document_kpages", _K),
    },
    "rerank": {"input_cost_per_query": ("rerank_searches_kcount", _K)},
    "video_generation": {
        "output_cost_per_second": ("video_hours", _HOUR),
        "output_cost_per_second_480p": ("video_hours:480p", _HOUR),
        "output_cost_per_second_720p": ("video_hours:720p", _HOUR),
        "output_cost_per_second_1080p": ("video_hours:1080p", _HOUR),
        "output_cost_per_second_2k": ("video_hours:2k", _HOUR),
        "output_cost_per_second_4k": ("video_hours:4k", _HOUR),
        "output_cost_per_video_per_second": ("video_hours", _HOUR),
    },
}
_ABOVE = re.compile(r"_above_(\d+)k_tokens")
_TIERS = {"_batches": "batch", "_flex": "flex", "_priority": "priority"}
_COMMITTED = re.compile(r"-commitment/|^bedrock/\*|/guardrails$|/invoke/")
_AWS_REGION = re.compile(r"bedrock/([a-z]{2}(?:-[a-z]+)+-\d)/(.+)")
_SIZED = re.compile(r"(?:(low|medium|high|standard|hd)/)?(\d+)-x-(\d+)/([^/]+)$")
_MILLI = Decimal("0.001")
_DATED = re.compile(r"-\d{4}-\d\d-\d\d$")


Prices = dict[str, Any]


def numbers(path: Path) -> dict[str, Any]:
    """A list, with its prices as exact decimals."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return json.loads(text, parse_float=Decimal)


def usd(amount: Decimal) -> str:
    return format(amount.normalize(), "f")


class Litellm:
    """The entries of one map of litellm, in the words of the price room."""

    def __init__(self, path: Path) -> None:
        self.entries = {key: entry for key, entry in numbers(path).items() if "litellm_provider" in entry}

    def models(self) -> Iterator[tuple[str, str, str | None, dict[str, Any]]]:
        """Provider, name, region (None for its list price) and entry of each model that is sold by what it uses."""
        for key, entry in self.entries.items():
            kind = entry["litellm_provider"]
            provider = "google" if _VERTEX.fullmatch(kind) else PROVIDERS.get(kind)
            if provider is None or _COMMITTED.search(key) or _SIZED.search(key) or "-steps/" in key:
                continue
            if found := _AWS_REGION.fullmatch(key):
                yield provider, found[2].lower(), found[1], entry
            elif key.startswith(("azure/eu/", "azure/us/", "azure/global")):
                continue  # zones that no URL tells
            else:
                yield provider, own_name(key, kind), None, entry

    def sized(self) -> Iterator[tuple[str, str, str, Decimal]]:
        """Provider, model, detail and price of images that have one by their size and quality."""
        for key, entry in self.entries.items():
            found, provider = _SIZED.search(key), PROVIDERS.get(entry["litellm_provider"])
            if found is None or provider is None:
                continue
            quality, width, height, model = found.groups()
            if quality in (None, "standard") and "dall-e" not in model:
                continue  # litellm's own guess of what is meant
            price = entry.get("input_cost_per_image")
            if price is None:
                pixels = Decimal(width) * Decimal(height)
                price = (Decimal(entry.get("input_cost_per_pixel", 0)) * pixels).quantize(_MILLI)
            if price:
                words = [f"{width}x{height}", *([quality] if quality not in (None, "standard") else [])]
                yield provider, model.lower(), ":".join(words), Decimal(price)

    def singapore(self, model: str) -> Prices | None:
        """What a video costs in Singapore, where litellm's entry of the same model has Beijing's price."""
        entry = self.entries.get(f"{_SINGAPORE}/{model}", {})
        return prices_in(entry)[0] if entry.get("mode") == "video_generation" else None

    def uplifts(self) -> list[dict[str, Any]]:
        """Which models cost more where the request names a region, and how much."""
        endpoints = {
            own_name(key, entry["litellm_provider"]): str(entry["regional_endpoint_uplift_multiplier"])
            for key, entry in self.entries.items()
            if "regional_endpoint_uplift_multiplier" in entry
        }
        residency = {
            key: str(entry["regional_processing_uplift_multiplier_eu"])
            for key, entry in self.entries.items()
            if "regional_processing_uplift_multiplier_eu" in entry
        }
        return [
            {"provider": "google", "regions_without": ["global"], "factors": shorter(endpoints)},
            {"provider": "openai", "regions": ["eu", "us"], "factors": shorter(residency)},
        ]


def shorter(factors: Mapping[str, str]) -> dict[str, str]:
    """Without the dated and qualified spellings of models: names are looked up without these."""
    plain = {name: factor for name, factor in factors.items() if "@" not in name and not _DATED.search(name)}
    return dict(sorted(plain.items()))


def own_name(key: str, kind: str) -> str:
    """The name by which the provider takes the model: without the prefix of the gateway."""
    prefix = kind.partition("-")[0] if kind.startswith("vertex_ai") else kind
    for start in (f"{prefix}/", "voyage/", "bedrock/", "bedrock_mantle/", "cohere/", "xai/", "fireworks_ai/"):
        if key.startswith(start):
            return key[len(start) :].lower()
    return key.lower()


def prices_in(entry: Mapping[str, Any]) -> tuple[Prices, dict[str, Prices]]:
    """The prices of an entry by price key, and those of its service tiers."""
    prices: dict[str | None, dict[str, dict[int, Decimal]]] = defaultdict(lambda: defaultdict(dict))
    for key, amount in entry.items():
        if isinstance(amount, int | Decimal) and not isinstance(amount, bool) and amount > 0:
            tier, plain = tier_of(key)
            above = _ABOVE.search(plain)
            name = _TOKENS.get(_ABOVE.sub("", plain))
            if name is not None:
                prices[tier][name][int(above[1]) * 1000 if above else 0] = amount * _MTOK
            elif piece := _PIECES.get(entry.get("mode", ""), {}).get(plain):
                prices[tier][piece[0]][0] = rounded(amount * piece[1], piece[0])
    searches = {*entry.get("search_context_cost_per_query", {}).values()}
    if len(searches) == 1 and (each := searches.pop()) > 0:  # where the price is by size, no reader tells the size
        prices[None]["web_searches_kcount"][0] = each * _K
    for step in entry.get("tiered_pricing", ()):
        for key, amount in step.items():
            if key in _TOKENS and amount:
                prices[None][_TOKENS[key]][int(step["range"][0])] = amount * _MTOK
    return listed(prices.pop(None, {})), {tier: listed(found) for tier, found in sorted(prices.items()) if tier}


def rounded(price: Decimal, key: str) -> Decimal:
    """The price of an hour as it is published: lists have it by the second, cut off somewhere."""
    return price.quantize(_MILLI) if key == "audio_hours" else price


def tier_of(key: str) -> tuple[str | None, str]:
    for ending, tier in _TIERS.items():
        if key.endswith(ending):
            return tier, key.removesuffix(ending)
    return None, key


def listed(prices: Mapping[str, Mapping[int, Decimal]]) -> Prices:
    """Prices as the file has them: a text, or texts by the input tokens above which they hold."""
    found: Prices = {}
    for key, steps in sorted(prices.items()):
        if 0 not in steps:
            continue  # a step of what has no price below it
        by_start = {str(start): usd(price) for start, price in sorted(steps.items())}
        found[key] = by_start["0"] if len(set(by_start.values())) == 1 else by_start
    if "images_kcount" in found and not found.keys().isdisjoint({"output_image_mtok", "output_mtok"}):
        del found["images_kcount"]  # billed by tokens; the price of a piece is what they come to
    return found
