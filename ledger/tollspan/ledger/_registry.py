"""Budget definitions as texts in the ledger, in the shape of a `[[budget]]` table of tollspan.toml."""

import orjson

from ._definitions import BudgetDefinition, budgets_from_table, format_limit


def dump_definition(definition: BudgetDefinition) -> str:
    """A definition, with its window, as JSON text: all of it, so that `load_definition` gives the same one."""
    window = definition.window
    return orjson.dumps(
        {
            "name": definition.name,
            "limit": format_limit(definition.limit, definition.unit, window),
            "timezone": window.timezone if window else "UTC",
            "match": dict(definition.match),
            "each": definition.each,
            "mode": definition.mode,
            "on_limit": definition.on_limit,
            "max_wait_timeout_s": definition.max_wait_timeout_s,
            "output_bound": definition.output_bound,
            "cut_stream": definition.cut_stream,
            "fallback_model": definition.fallback_model,
            "warn_at": definition.warn_at,
        }
    ).decode()


def load_definition(text: str) -> BudgetDefinition:
    """The definition of a JSON text that `dump_definition` made. Raises BudgetSyntaxError for another."""
    table = {key: value for key, value in orjson.loads(text).items() if value is not None}
    return budgets_from_table([table], where="the ledger", mode="strict", timezone="UTC")[0]
