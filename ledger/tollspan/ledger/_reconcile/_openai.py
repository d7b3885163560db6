"""OpenAI's exports: the costs API (`GET /v1/organization/costs`), the usage API, and their CSV from the dashboard.

Formats: platform.openai.com/docs/api-reference/usage, and OpenAI's own OpenAPI description, version 2.3 (`CostsResult`,
`UsageCompletionsResult`); the columns of the CSV are the fields of the JSON with `amount_value`, `amount_currency`. A
model stands nowhere but in `line_item` ("gpt-4o-2024-08-06, cached input"), which is there where the costs are grouped
by it.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tollspan.ledger._reconcile._bill import Bill, BillLine, amount, buckets, table, text, tokens_of, usd_only, utc

PROVIDER = "openai"
_SURFACE = re.compile(r"^(?P<surface>[\w ]+?) \| (?P<rest>.+)$")
_MODEL = re.compile(r"(?=.*[0-9-])[A-Za-z0-9][\w.:-]*")
_TIERS = ("batch", "flex", "priority")
_SPAN = ("start_time", "end_time")
_TOKENS = ("input_tokens", "output_tokens")


def read_costs(pages: Iterable[Mapping[str, Any]], where: str) -> Bill:
    """A bill from pages of the costs API. Raises BillError."""
    bill = Bill(format="openai-costs", provider=PROVIDER, measure="usd")
    for place, start, result in buckets(bill, pages, where, _SPAN):
        cost = table(result.get("amount"), f"{place}.amount")
        usd_only(cost.get("currency"), f"{place}.amount.currency")
        usd = amount(cost.get("value"), f"{place}.amount.value")
        bill.add(_line(start, text(result.get("line_item")), usd))
    return bill


def read_usage(pages: Iterable[Mapping[str, Any]], where: str) -> Bill:
    """A bill in tokens from pages of the usage API. Raises BillError."""
    bill = Bill(format="openai-usage", provider=PROVIDER, measure="tokens")
    for place, start, result in buckets(bill, pages, where, _SPAN):
        bill.add(_usage_line(start, result, f"{place}."))
    return bill


def read_costs_csv(records: Iterable[tuple[str, Mapping[str, str]]]) -> Bill:
    """A bill from the CSV of the costs; rows without an amount are days without costs. Raises BillError."""
    bill = Bill(format="openai-costs", provider=PROVIDER, measure="usd")
    for place, record in records:
        start, end = _span(record, place)
        bill.cover(start, end)
        if not record["amount_value"].strip():
            continue
        usd_only(record.get("amount_currency"), f"{place}: amount_currency")
        usd = amount(record["amount_value"], f"{place}: amount_value")
        bill.add(_line(start, text(record.get("line_item")), usd))
    return bill


def read_usage_csv(records: Iterable[tuple[str, Mapping[str, str]]]) -> Bill:
    """A bill in tokens from the CSV of the usage. Raises BillError."""
    bill = Bill(format="openai-usage", provider=PROVIDER, measure="tokens")
    for place, record in records:
        start, end = _span(record, place)
        bill.cover(start, end)
        bill.add(_usage_line(start, record, f"{place}: "))
    return bill


def item_of(line_item: str) -> tuple[str | None, str, str | None]:
    """The model, what was billed of it, and the service tier of a `line_item`."""
    found = _SURFACE.match(line_item)
    surface, rest = (found["surface"].lower(), found["rest"]) if found else ("", line_item)
    tier = surface if surface in _TIERS else None
    head, comma, kind = rest.partition(",")
    name = head.split()[0]  # "gpt-audio-mini-2025-12-15 audio, input"
    if not _MODEL.fullmatch(name) or (not comma and name != rest.strip()):
        return None, line_item, tier  # "web search tool calls", "Vector storage"
    return name, kind.strip().lower() or rest.strip(), tier


def _line(start: datetime, line_item: str | None, usd: Any) -> BillLine:
    model, item, tier = (None, "", None) if line_item is None else item_of(line_item)
    return BillLine(day=start.date(), model=model, item=item, usd=usd, tier=tier, cached="cached" in item)


def _usage_line(start: datetime, result: Mapping[str, Any], place: str) -> BillLine:
    counted = tokens_of(result, _TOKENS, place)
    tier = "batch" if result.get("batch") in (True, "true", "True") else None
    return BillLine(day=start.date(), model=text(result.get("model")), item="tokens", tokens=counted, tier=tier)


def _span(record: Mapping[str, str], place: str) -> tuple[datetime, datetime | None]:
    end = record.get("end_time") or ""
    start = utc(record["start_time"], f"{place}: start_time")
    return start, utc(end, f"{place}: end_time") if end.strip() else None
