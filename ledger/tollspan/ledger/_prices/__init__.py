"""Prices: one resolver from (provider, model, moment) to a rate card in integers, and a reason where there is none."""

from tollspan.ledger._prices._book import PriceBook
from tollspan.ledger._prices._file import PriceFile, PriceFileError
from tollspan.ledger._prices._rates import CostBound, RateCard, Unpriced

__all__ = ["CostBound", "PriceBook", "PriceFile", "PriceFileError", "RateCard", "Unpriced"]
