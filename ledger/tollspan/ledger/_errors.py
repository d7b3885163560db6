"""Errors of the ledger.

LedgerError
├── LedgerUnavailable    the store cannot be written or read now
└── LedgerConflict       an event id came twice, with different content
"""


class LedgerError(Exception):
    """Something is wrong with the ledger; the text says what to do."""


class LedgerUnavailable(LedgerError):  # noqa: N818 - named for the state, as users meet it in `except`
    """The store cannot be read or written: locked, full, read-only, or not a ledger at all.

    `uncertain` is set where the commit itself failed: the transaction may turn out to be stored.
    """

    uncertain = False


class LedgerConflict(LedgerError):  # noqa: N818 - named for the state, as users meet it in `except`
    """An event with this id is stored already, with different content: that is no replay."""
