"""The ground floor: events, money, prices, budget definitions, and the store that keeps them.

`open_ledger()` opens the configured ledger, `LedgerEvent` is one row of it.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_face

if TYPE_CHECKING:
    from ._adjust import spend_of
    from ._archive import Imported
    from ._batch import LEDGER_BUDGET, Entry, HoldRequest, Key, charge_of
    from ._counts import WriterCounts
    from ._definitions import (
        LONGEST_WAIT_S,
        BudgetDefinition,
        BudgetSyntaxError,
        CutStream,
        Mode,
        OnLimit,
        format_limit,
        parse_limit,
    )
    from ._ending import at_the_end
    from ._errors import LedgerConflict, LedgerError, LedgerUnavailable
    from ._events import SERVICE_TIER, Charge, EventType, LedgerEvent, Status, call_id_prefix, event_id_for, new_call_id
    from ._fetched import fetched_call_id
    from ._figures import (
        DailyModelCost,
        Difference,
        ErrorRate,
        KnownBudget,
        Latency,
        ModelLatency,
        OpenHolds,
        Overview,
        ReportRow,
        TimePoint,
        Trouble,
        UncoveredCalls,
        UnderheldCalls,
        UnpricedCalls,
    )
    from ._guard import internal_errors
    from ._holds import Balance, Cost, Demand, Grant, Limit, Refusal, decide
    from ._journal import Segment
    from ._learned import LearnedBound
    from ._ledger import Ledger, open_ledger
    from ._listeners import Listener
    from ._money import NANO_PER_USD, format_usd, to_nano, to_nano_up, to_usd
    from ._overrides import BudgetOverride, Overrides
    from ._postings import Posting, event_of
    from ._prices import CostBound, PriceBook, PriceFile, PriceFileError, RateCard, Unpriced
    from ._prices._catalog import PriceCatalog
    from ._prices._edit import PriceChange, set_alias, set_price
    from ._prices._names import STANDARD_TIER, tier_of
    from ._prune import Pruned
    from ._reconcile import BILL_FORMATS, BillError, BillFormat, Explanation, Reconciled, ReconciledRow, Tolerance
    from ._registry import dump_definition, load_definition
    from ._reprice import Repriced, RepricedRow, RepriceSelection
    from ._runs import Undone
    from ._selection import QueryError, time_zone
    from ._settings import SETTINGS, ConfigurationError, Settings, load_settings, settings_reference
    from ._single_flight import warm_races
    from ._store import Definition
    from ._sweep import Recovered
    from ._tickets import Ticket
    from ._units import BEHIND, Unit, account_of, budget_of, format_amount, in_unit, tokens_of, unit_of
    from ._windows import Window, WindowKind, did_you_mean
    from ._writer import Writer
else:
    __getattr__, __dir__ = lazy_face(
        __name__,
        {
            "_archive": "Imported",
            "_batch": "LEDGER_BUDGET Entry HoldRequest Key charge_of",
            "_counts": "WriterCounts",
            "_definitions": (
                "LONGEST_WAIT_S BudgetDefinition BudgetSyntaxError CutStream Mode OnLimit format_limit parse_limit"
            ),
            "_ending": "at_the_end",
            "_errors": "LedgerConflict LedgerError LedgerUnavailable",
            "_adjust": "spend_of",
            "_events": "SERVICE_TIER Charge EventType LedgerEvent Status call_id_prefix event_id_for new_call_id",
            "_fetched": "fetched_call_id",
            "_figures": (
                "DailyModelCost Difference ErrorRate KnownBudget Latency ModelLatency OpenHolds Overview "
                "ReportRow TimePoint Trouble UncoveredCalls UnderheldCalls UnpricedCalls"
            ),
            "_guard": "internal_errors",
            "_holds": "Balance Cost Demand Grant Limit Refusal decide",
            "_journal": "Segment",
            "_learned": "LearnedBound",
            "_ledger": "Ledger open_ledger",
            "_listeners": "Listener",
            "_money": "NANO_PER_USD format_usd to_nano to_nano_up to_usd",
            "_overrides": "BudgetOverride Overrides",
            "_postings": "Posting event_of",
            "_prices": "CostBound PriceBook PriceFile PriceFileError RateCard Unpriced",
            "_prices._catalog": "PriceCatalog",
            "_prices._edit": "PriceChange set_alias set_price",
            "_prices._names": "STANDARD_TIER tier_of",
            "_prune": "Pruned",
            "_registry": "dump_definition load_definition",
            "_reconcile": "BILL_FORMATS BillError BillFormat Explanation Reconciled ReconciledRow Tolerance",
            "_reprice": "Repriced RepricedRow RepriceSelection",
            "_runs": "Undone",
            "_selection": "QueryError time_zone",
            "_settings": "SETTINGS ConfigurationError Settings load_settings settings_reference",
            "_single_flight": "warm_races",
            "_store": "Definition",
            "_sweep": "Recovered",
            "_tickets": "Ticket",
            "_units": "BEHIND Unit account_of budget_of format_amount in_unit tokens_of unit_of",
            "_windows": "Window WindowKind did_you_mean",
            "_writer": "Writer",
        },
    )

__all__ = [
    "BEHIND",
    "BILL_FORMATS",
    "LEDGER_BUDGET",
    "LONGEST_WAIT_S",
    "NANO_PER_USD",
    "SERVICE_TIER",
    "SETTINGS",
    "STANDARD_TIER",
    "Balance",
    "BillError",
    "BillFormat",
    "BudgetDefinition",
    "BudgetOverride",
    "BudgetSyntaxError",
    "Charge",
    "ConfigurationError",
    "Cost",
    "CostBound",
    "CutStream",
    "DailyModelCost",
    "Definition",
    "Demand",
    "Difference",
    "Entry",
    "ErrorRate",
    "EventType",
    "Explanation",
    "Grant",
    "HoldRequest",
    "Imported",
    "Key",
    "KnownBudget",
    "Latency",
    "LearnedBound",
    "Ledger",
    "LedgerConflict",
    "LedgerError",
    "LedgerEvent",
    "LedgerUnavailable",
    "Limit",
    "Listener",
    "Mode",
    "ModelLatency",
    "OnLimit",
    "OpenHolds",
    "Overrides",
    "Overview",
    "Posting",
    "PriceBook",
    "PriceCatalog",
    "PriceChange",
    "PriceFile",
    "PriceFileError",
    "Pruned",
    "QueryError",
    "RateCard",
    "Reconciled",
    "ReconciledRow",
    "Recovered",
    "Refusal",
    "ReportRow",
    "RepriceSelection",
    "Repriced",
    "RepricedRow",
    "Segment",
    "Settings",
    "Status",
    "Ticket",
    "TimePoint",
    "Tolerance",
    "Trouble",
    "UncoveredCalls",
    "UnderheldCalls",
    "Undone",
    "Unit",
    "Unpriced",
    "UnpricedCalls",
    "Window",
    "WindowKind",
    "Writer",
    "WriterCounts",
    "account_of",
    "at_the_end",
    "budget_of",
    "call_id_prefix",
    "charge_of",
    "decide",
    "did_you_mean",
    "dump_definition",
    "event_id_for",
    "event_of",
    "fetched_call_id",
    "format_amount",
    "format_limit",
    "format_usd",
    "in_unit",
    "internal_errors",
    "lazy_face",
    "load_definition",
    "load_settings",
    "new_call_id",
    "open_ledger",
    "parse_limit",
    "set_alias",
    "set_price",
    "settings_reference",
    "spend_of",
    "tier_of",
    "time_zone",
    "to_nano",
    "to_nano_up",
    "to_usd",
    "tokens_of",
    "unit_of",
    "warm_races",
]
