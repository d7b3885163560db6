"""Anthropic's exports: cost and usage reports of the Admin API, and the CSV of the console.

Formats: platform.claude.com/docs/en/api/admin/cost_report and .../usage_report (`GET /v1/organizations/cost_report`,
`.../usage_report/messages`): amounts of the cost report are decimal texts in cents ("123.78912" is 1.2378912 USD), and
`model` is there where it is grouped by `description`. The console's CSV (Cost and Usage pages) has `cost_usd` in USD,
and names of models for people ("Claude Haiku 4.5").
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tollspan.ledger._reconcile._bill import (
    Bill,
    BillError,
    BillLine,
    amount,
    buckets,
    table,
    text,
    tokens,
    tokens_of,
    usd_only,
    utc,
)

PROVIDER = "anthropic"
_CENTS = -2
_STANDARD = (None, "standard")
_SPAN = ("starting_at", "ending_at")
_TOKENS = ("uncached_input_tokens", "cache_read_input_tokens", "output_tokens")
_CSV_TOKENS = (
    "usage_input_tokens_no_cache",
    "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h",
    "usage_input_tokens_cache_read",
    "usage_output_tokens",
)


def read_costs(pages: Iterable[Mapping[str, Any]], where: str) -> Bill:
    """A bill from pages of the cost report. Raises BillError."""
    bill = Bill(format="anthropic-cost", provider=PROVIDER, measure="usd")
    for place, start, result in buckets(bill, pages, where, _SPAN):
        usd_only(result.get("currency"), f"{place}.currency")
        kind = text(result.get("token_type")) or text(result.get("cost_type")) or ""
        bill.add(
            BillLine(
                day=start.date(),
                model=text(result.get("model")),
                item=text(result.get("description")) or kind,
                usd=amount(_decimal_text(result.get("amount"), f"{place}.amount"), f"{place}.amount").scaleb(_CENTS),
                tier=_tier(result.get("service_tier")),
                cached="cache_read" in kind,
            )
        )
    return bill


def read_usage(pages: Iterable[Mapping[str, Any]], where: str) -> Bill:
    """A bill in tokens from pages of the messages usage report. Raises BillError."""
    bill = Bill(format="anthropic-usage", provider=PROVIDER, measure="tokens")
    for place, start, result in buckets(bill, pages, where, _SPAN):
        written = table(result.get("cache_creation") or {}, f"{place}.cache_creation")
        counted = tokens_of(result, _TOKENS, f"{place}.")
        counted += sum(tokens(count, f"{place}.cache_creation.{name}") for name, count in written.items())
        bill.add(
            BillLine(
                day=start.date(),
                model=text(result.get("model")),
                item="tokens",
                tokens=counted,
                tier=_tier(result.get("service_tier")),
            )
        )
    return bill


def read_costs_csv(records: Iterable[tuple[str, Mapping[str, str]]]) -> Bill:
    """A bill from the console's CSV of costs. Raises BillError."""
    bill = Bill(format="anthropic-cost", provider=PROVIDER, measure="usd")
    for place, record in records:
        kind = record.get("token_type") or record.get("cost_type") or ""
        bill.add(
            BillLine(
                day=utc(record["usage_date_utc"], f"{place}: usage_date_utc").date(),
                model=text(record.get("model")),
                item=kind,
                usd=amount(record["cost_usd"], f"{place}: cost_usd"),
                tier=_tier(record.get("usage_type") if record.get("usage_type") == "batch" else None),
                cached="cache_read" in kind,
            )
        )
    return bill


def read_usage_csv(records: Iterable[tuple[str, Mapping[str, str]]]) -> Bill:
    """A bill in tokens from the console's CSV of usage. Raises BillError."""
    bill = Bill(format="anthropic-usage", provider=PROVIDER, measure="tokens")
    for place, record in records:
        bill.add(
            BillLine(
                day=utc(record["usage_date_utc"], f"{place}: usage_date_utc").date(),
                model=text(record.get("model_version")),
                item="tokens",
                tokens=tokens_of(record, _CSV_TOKENS, f"{place}: "),
            )
        )
    return bill


def _decimal_text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise BillError(f'{place} is {value!r}: in this report it is a text in cents, like "123.78912"')
    return value


def _tier(value: Any) -> str | None:
    tier = text(value)
    return None if tier in _STANDARD else tier
