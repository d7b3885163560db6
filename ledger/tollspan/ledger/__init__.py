"""The ground floor: events, money, prices, budget definitions, and the store that keeps them.

`open_ledger()` opens the configured ledger, `LedgerEvent` is one row of it.
"""

from ._definitions import BudgetDefinition, BudgetSyntaxError, CutStream, Mode, OnLimit, Unit, parse_limit
from ._errors import LedgerConflict, LedgerError, LedgerUnavailable
from ._events import Charge, EventType, LedgerEvent, Status, event_id_for, new_call_id
from ._guard import internal_errors
from ._holds import Balance, Cost, Demand, Grant, Limit, Refusal, decide
from ._ledger import Ledger, open_ledger
from ._money import NANO_PER_USD, format_usd, to_nano, to_nano_up, to_usd
from ._prices import PriceBook, PriceFileError
from ._rates import CostBound, RateCard, Unpriced
from ._registry import dump_definition, load_definition
from ._settings import ConfigurationError, SETTINGS, Settings, load_settings, settings_reference
from ._store import Definition, Entry, HoldRequest, Key, LEDGER_BUDGET
from ._tickets import Ticket
from ._windows import Window, WindowKind
from ._writer import Writer, WriterCounts

__all__ = [
    "Balance",
    "BudgetDefinition",
    "BudgetSyntaxError",
    "Charge",
    "ConfigurationError",
    "Cost",
    "CostBound",
    "CutStream",
    "Definition",
    "Demand",
    "Entry",
    "EventType",
    "Grant",
    "HoldRequest",
    "Key",
    "LEDGER_BUDGET",
    "Ledger",
    "LedgerConflict",
    "LedgerError",
    "LedgerEvent",
    "LedgerUnavailable",
    "Limit",
    "Mode",
    "NANO_PER_USD",
    "OnLimit",
    "PriceBook",
    "PriceFileError",
    "RateCard",
    "Refusal",
    "SETTINGS",
    "Settings",
    "Status",
    "Ticket",
    "Unit",
    "Unpriced",
    "Window",
    "WindowKind",
    "Writer",
    "WriterCounts",
    "decide",
    "dump_definition",
    "event_id_for",
    "format_usd",
    "internal_errors",
    "load_definition",
    "load_settings",
    "new_call_id",
    "open_ledger",
    "parse_limit",
    "settings_reference",
    "to_nano",
    "to_nano_up",
    "to_usd",
]
