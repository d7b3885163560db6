"""What the writer of a process has seen, for the metrics; and what of it `doctor` is to see in any process."""

from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class WriterCounts:
    """What the writer has seen since the process began.

    Events: `written`, `replayed` (stored before), `rejected` (cannot be stored), `spilled` (waited in the journal
    alone), `lost` (no room in memory and no journal). `conflicts` are ids that came with different content, `failures`
    transactions that were rolled back. Of dead processes: events `recovered` from their journals, and `orphans`, calls
    counted at what they may have cost. `lag_ms` is how long the oldest event of the last batch had waited.
    """

    written: int = 0
    replayed: int = 0
    conflicts: int = 0
    rejected: int = 0
    failures: int = 0
    spilled: int = 0
    lost: int = 0
    recovered: int = 0
    orphans: int = 0
    lag_ms: float = 0.0
    last_error: str | None = None
    _facts: deque[str] = field(default_factory=deque)

    def note(self, fact: str, count: int = 1) -> None:
        """Add to a fact of the ledger, which is stored with the next batch. Any thread may call it."""
        self._facts.extend([fact] * count)

    def noted(self) -> Counter[str]:
        """The facts that are not stored yet."""
        return Counter(self._facts.copy())

    def stored(self, facts: Counter[str]) -> None:
        """These facts are in the ledger now."""
        for _ in range(facts.total()):
            self._facts.popleft()
