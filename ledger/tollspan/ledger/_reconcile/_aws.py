"""Rows of Amazon's Cost and Usage Report that are of Bedrock: CUR 2.0 and the older CUR, as CSV or Parquet.

Formats: docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html (columns like `line_item_usage_type`, in
the older report `lineItem/UsageType`), and "Understanding your Amazon Bedrock Cost and Usage Report data" in the user
guide of Bedrock (usage types like `USE1-Claude4.5Sonnet-input-tokens`). Models sold through the Marketplace are named
by their product ("Claude Sonnet 4.6 (Amazon Bedrock Edition)"); their usage types tell only the kind of tokens.
"""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from tollspan.ledger._reconcile._bill import Bill, BillError, BillLine, amount, text, usd_only, utc

PROVIDER = "aws"
START, COST, TYPE = "line_item_usage_start_date", "line_item_unblended_cost", "line_item_usage_type"
COLUMNS = (
    START,
    COST,
    TYPE,
    "line_item_product_code",
    "line_item_line_item_type",
    "line_item_currency_code",
    "product",
    "product_product_name",
    "product_servicecode",
    "product_servicename",
)
_USED = frozenset({"", "Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"})
_TOKENS = re.compile(
    r"(?:[A-Z]{2,4}[0-9]?-)?(?P<model>.+?)-"
    r"(?P<item>(?:(?:mantle|text|image|audio|video|speech|cache-\w+)-)*(?:input|output)-(?:\w+-)*tokens?\b.*)"
)
_MARKETPLACE = re.compile(r"(?:\w+-)?MP:(?:[A-Z]{2,4}[0-9]?_)?(?P<item>.+?)(?:-Units)?")
_EDITION = re.compile(r"\s*\(Amazon Bedrock Edition\)\s*$", re.IGNORECASE)
_TIERS = ("batch", "flex", "priority", "latency-optimized")


def column_of(name: str) -> str:
    """A column as CUR 2.0 spells it: `lineItem/UsageStartDate` is `line_item_usage_start_date`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).replace("/", "_").lower()


def read_cur(records: Iterable[tuple[str, Mapping[str, Any]]], where: str) -> Bill:
    """A bill from the rows of a report that are of Bedrock. Raises BillError."""
    bill = Bill(format="aws-cur", provider=PROVIDER, measure="usd")
    for place, record in records:
        if not _is_bedrock(record):
            bill.others += 1
            continue
        usd_only(record.get("line_item_currency_code"), f"{place}: line_item_currency_code")
        usage_type = str(record.get(TYPE) or "")
        kind = str(record.get("line_item_line_item_type") or "")
        model, item = _model_of(record, usage_type) if kind in _USED else (None, kind)
        tier = next((tier for tier in _TIERS if tier in usage_type.lower()), None)
        bill.add(
            BillLine(
                day=utc(record.get(START), f"{place}: {START}").date(),
                model=model,
                item=item,
                usd=amount(_exact(record.get(COST)), f"{place}: {COST}"),
                tier=tier,
                cached="cache-read" in item or "CacheRead" in item,
            )
        )
    if not bill.cells:
        raise BillError(
            f"{where} has {bill.others} rows and none of Bedrock; export the report of the account that calls"
        )
    return bill


def _model_of(record: Mapping[str, Any], usage_type: str) -> tuple[str | None, str]:
    if found := _MARKETPLACE.fullmatch(usage_type):
        name = _product(record, "product_name") or _product(record, "servicename")
        return (_EDITION.sub("", name) if name else None), found["item"]
    if found := _TOKENS.fullmatch(usage_type):
        return found["model"], found["item"]
    return None, usage_type  # guardrails, provisioned throughput, images


def _is_bedrock(record: Mapping[str, Any]) -> bool:
    named = [
        record.get("line_item_product_code"),
        *(_product(record, n) for n in ("product_name", "servicecode", "servicename")),
    ]
    return any("bedrock" in str(name).lower() for name in named if name)


def _product(record: Mapping[str, Any], name: str) -> str | None:
    """An attribute of the product: a column of its own, or an entry of the map that is one column."""
    own = text(record.get(f"product_{name}"))
    return own or text(_map(record.get("product")).get(name))


def _map(value: Any) -> Mapping[str, Any]:
    if isinstance(value, list):  # a map, as pyarrow gives it
        return dict(value)
    try:
        found = json.loads(value) if isinstance(value, str) and value else value
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _exact(value: Any) -> Any:
    # Parquet keeps costs as binary floats; the shortest text of one is the decimal that AWS has written.
    return Decimal(repr(value)) if isinstance(value, float) else value
