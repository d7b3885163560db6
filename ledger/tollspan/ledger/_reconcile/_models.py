"""Which model of an export is which of the ledger: the same words in another order, with or without a date.

A model is called "gpt-4o-2024-08-06" by its API, "gpt-4o" by those who ask for it, "Claude Haiku 4.5" by a console,
"us.anthropic.claude-haiku-4-5-20251001-v1:0" by Bedrock and "Claude4.5Haiku" by Amazon's bill.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from tollspan.ledger._prices._names import names_of

_FINE_TUNED = re.compile(r"^ft[:-](?P<base>[^:]+)(?::.*)?$", re.IGNORECASE)
_REGION = re.compile(r"^(?:us|eu|apac|jp|au|ca|sa|me|af|us-gov|global)\.(?=\w+\.)", re.IGNORECASE)
_VENDOR = re.compile(r"^[a-z][a-z0-9]*\.(?=[a-z])", re.IGNORECASE)
_VERSION = re.compile(r"(?:-v\d+(?::\d+)*(?::\d+k)?|:\d+)$", re.IGNORECASE)
_DATE = re.compile(r"[-@](?:20\d{2}-?[01]\d-?[0-3]\d|latest)(?=$|[-:])", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=\d)(?=[A-Z][a-z])|(?<=[A-Za-z]{3})(?=\d)")
_WORD = re.compile(r"\d+(?:[.-]\d+)*(?![a-z0-9])|[a-z0-9]+", re.IGNORECASE)
_FILLERS = frozenset({"instruct"})


def key_of(model: str, provider: str) -> str:
    """What all names of a model have in common: its words in order of the alphabet, versions like 4.5 as one word."""
    name = names_of(model, provider, provider)[-1]
    if found := _FINE_TUNED.match(name):
        name = f"ft-{found['base']}"
    if provider == "aws":
        name = _VERSION.sub("", _VENDOR.sub("", _REGION.sub("", name)))
    name = _CAMEL.sub("-", _DATE.sub("", name)) if provider == "aws" else _DATE.sub("", name)
    words = (word.lower().replace("-", ".") for word in _WORD.findall(name))
    return " ".join(sorted(re.sub(r"(?:\.0)+$", "", word) for word in words if word not in _FILLERS))


def paired(export: Iterable[str], ledger: Iterable[str], provider: str, same: Mapping[str, str]) -> "Pairing":
    """Which names mean the same model; `same` says it where that cannot be told: the export's name to the ledger's."""
    sides: tuple[dict[str, set[str]], dict[str, set[str]]] = (defaultdict(set), defaultdict(set))
    for side, names in zip(sides, (export, ledger), strict=True):
        for name in names:
            side[key_of(same.get(name, name), provider)].add(name)
    shown: dict[str, str] = {}
    for key in {*sides[0], *sides[1]}:
        exported, known = sides[0].get(key, set()), sides[1].get(key, set())
        for name in exported | known:
            # Where both sides have the same names, each is a row of its own: dated versions may differ in price.
            shown[name] = name if exported == known else min(known or exported, key=lambda one: (len(one), one))
    both = {shown[name] for name in export} & {shown[name] for name in ledger}
    return Pairing(shown, both)


class Pairing:
    """The row in which each name of a model is shown, and the rows that both sides have."""

    def __init__(self, shown: Mapping[str, str], both: Iterable[str]) -> None:
        self._shown = shown
        self.both = frozenset(both)

    def row_of(self, name: str) -> str:
        """The name of its row."""
        return self._shown[name]
