"""Definitions written in code are noted in the ledger once, so that `tollspan budget status` can show their limits."""

import time
from collections.abc import Iterable

from tollspan.ledger import BudgetDefinition, Definition, Writer, dump_definition

_noted: set[tuple[int, BudgetDefinition]] = set()


def remember(writer: Writer, definitions: Iterable[BudgetDefinition]) -> None:
    """Note the definitions that this process has not noted yet."""
    for definition in (d for d in definitions if d.window is not None):
        key = (id(writer), definition)
        if key not in _noted:
            _noted.add(key)
            writer.define(Definition(definition.name, dump_definition(definition), time.time()))
