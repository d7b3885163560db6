"""OpenRouter's exports: the activity API (`GET /api/v1/activity`), and the CSV of the activity page.

Formats: openrouter.ai/docs/api/api-reference/analytics/get-user-activity (`ActivityItem`): by endpoint and completed
UTC day, `usage` in USD of credits; what a request with a key of one's own has cost at its provider is
`byok_usage_inference`, which is on that provider's bill. The CSV of single requests has `created_at` and `cost_total`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tollspan.ledger._reconcile._bill import Bill, BillLine, amount, rows, table, text, utc

PROVIDER = "openrouter"


def read_activity(pages: Iterable[Mapping[str, Any]], where: str) -> Bill:
    """A bill from answers of the activity API. Raises BillError."""
    bill = _bill()
    for page in pages:
        for i, found in enumerate(rows(page.get("data"), f"{where}: data")):
            place = f"{where}: data[{i}]"
            _add(bill, table(found, place), f"{place}.", "date", "usage")
    return bill


def read_activity_csv(records: Iterable[tuple[str, Mapping[str, str]]]) -> Bill:
    """A bill from the CSV of the activity, by day or by request. Raises BillError."""
    bill = _bill()
    for place, record in records:
        single = "created_at" in record
        _add(bill, record, f"{place}: ", "created_at" if single else "date", "cost_total" if single else "usage")
    return bill


def _bill() -> Bill:
    return Bill(format="openrouter", provider=PROVIDER, measure="usd")


def _add(bill: Bill, record: Mapping[str, Any], place: str, day: str, cost: str) -> None:
    model = text(record.get("model_permaslug")) or text(record.get("model"))
    variant = text(record.get("variant"))
    if model and variant and variant != "standard" and ":" not in model:
        model = f"{model}:{variant}"
    bill.add(
        BillLine(
            day=utc(record.get(day), f"{place}{day}").date(),
            model=model,
            item=text(record.get("provider_name")) or "requests",
            usd=amount(record.get(cost), f"{place}{cost}"),
        )
    )
    elsewhere = record.get("byok_usage_inference")
    if elsewhere not in (None, ""):
        bill.elsewhere_usd += amount(elsewhere, f"{place}byok_usage_inference")
