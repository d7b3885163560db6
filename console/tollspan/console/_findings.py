"""What the doctor finds, one thing at a time."""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `advice` says what to do about a problem or a note."""

    topic: str
    grade: Grade
    text: str
    advice: str | None = None
