"""Metrics of the ledger through the OpenTelemetry API: observed when they are collected, off the path of any call.

What costs money is told after its commit, so that no metric shows what a rollback has undone.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from tollspan.ledger import LedgerError, warm_races

if TYPE_CHECKING:
    from tollspan.ledger import Ledger, LedgerEvent, WriterCounts

_QUIET = ("_ProxyMeterProvider", "NoOpMeterProvider")
_ERRORS = ("failures", "conflicts", "rejected", "lost")

_Look = Callable[["Ledger"], Iterable[Observation]]


class LedgerMetrics:
    """The instruments of one process. `ledger` gives the ledger once it is open, and None before."""

    def __init__(self, provider: MeterProvider | None, ledger: "Callable[[], Ledger | None]") -> None:
        self._provider = provider or metrics.get_meter_provider()
        self._ledger = ledger
        meter = self._provider.get_meter("tollspan", version("tollspan"))
        self._cost = meter.create_counter("tollspan.cost", unit="USD", description="Spend, estimates included.")
        self._underholds = meter.create_counter(
            "tollspan.underhold", unit="{call}", description="Calls that cost more than was held for them."
        )
        self._observe_writer(meter)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody collects."""
        return type(self._provider).__name__ not in _QUIET

    def tell(self, events: "Sequence[LedgerEvent]") -> None:
        """Count what was committed: a listener of the ledger."""
        for event in events:
            spend = event.spend_usd
            if spend is None:
                continue
            labels = {"gen_ai.provider.name": event.provider or "", "gen_ai.response.model": event.model or ""}
            if spend > 0:  # an adjust may take back
                self._cost.add(float(spend), {**labels, "tollspan.cost.estimated": event.estimated})
            if event.cost_est_usd is not None and spend > event.cost_est_usd:
                self._underholds.add(1, labels)

    def _observe_writer(self, meter: Meter) -> None:
        gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
        gauge("tollspan.ledger.queue", [self._of(_queue)], "{event}", "Events that are not in the ledger yet.")
        gauge("tollspan.ledger.lag", [self._of(_lag)], "ms", "How long the oldest event of the last batch had waited.")
        counter("tollspan.ledger.events", [self._of(_written)], "{event}", "Events written.")
        counter("tollspan.ledger.errors", [self._of(_errors)], "{error}", "By `error.type`; `failures` are rollbacks.")
        counter("tollspan.ledger.replays", [self._of(_replays)], "{event}", "Events from journals of dead processes.")
        counter(
            "tollspan.orphan_holds", [self._of(_orphans)], "{call}", "Calls of dead processes, counted as estimates."
        )
        gauge(
            "tollspan.balance.difference",
            [self._of(_drift)],
            "1",
            "Largest gap between a balance in memory and on disk.",
        )
        counter(
            "tollspan.balance.warm_races", [self._of(_races)], "{wait}", "Waits for what another thread was loading."
        )

    def _of(self, look: _Look) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            ledger = self._ledger()
            return () if ledger is None else look(ledger)

        return observe


def _counts(ledger: "Ledger") -> "WriterCounts":
    return ledger.writer.counts


def _queue(ledger: "Ledger") -> Iterable[Observation]:
    yield Observation(ledger.writer.pending)


def _lag(ledger: "Ledger") -> Iterable[Observation]:
    yield Observation(_counts(ledger).lag_ms)


def _written(ledger: "Ledger") -> Iterable[Observation]:
    yield Observation(_counts(ledger).written)


def _errors(ledger: "Ledger") -> Iterable[Observation]:
    for kind in _ERRORS:
        yield Observation(getattr(_counts(ledger), kind), {"error.type": kind})
    yield Observation(ledger.writer.journal.failures, {"error.type": "journal"})


def _replays(ledger: "Ledger") -> Iterable[Observation]:
    yield Observation(_counts(ledger).recovered)


def _orphans(ledger: "Ledger") -> Iterable[Observation]:
    yield Observation(_counts(ledger).orphans)


def _drift(ledger: "Ledger") -> Iterable[Observation]:
    try:
        yield Observation(ledger.drift())
    except LedgerError:
        return  # the errors are counted where the ledger is written


def _races(_ledger: "Ledger") -> Iterable[Observation]:
    yield Observation(warm_races())
