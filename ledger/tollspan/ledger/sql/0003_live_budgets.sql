-- What budgets of many processes share besides their balances.

-- Limits and budgets set from outside, over those of code and configuration: in force in every process within a second.
CREATE TABLE budget_override (
    name       TEXT PRIMARY KEY,
    limit_     INTEGER NOT NULL,                -- in the unit: nano-USD, tokens, requests or calls at once
    unit       TEXT    NOT NULL,
    definition TEXT,                            -- JSON of a budget of its own; NULL: only the limit of the one so named
    until      REAL,                            -- epoch seconds after which it is as if removed; NULL: for good
    at         REAL    NOT NULL                 -- epoch seconds
) STRICT, WITHOUT ROWID;

-- What is to be told once, by one of all processes: that a balance has passed a threshold.
CREATE TABLE told (
    what TEXT PRIMARY KEY,
    at   REAL NOT NULL                          -- epoch seconds
) STRICT, WITHOUT ROWID;

-- Every definition of a budget and when it was last seen: two of one name, seen at the same time, are told by `doctor`.
CREATE TABLE budget_seen (
    name       TEXT NOT NULL,
    definition TEXT NOT NULL,                   -- JSON
    seen       REAL NOT NULL,                   -- epoch seconds
    PRIMARY KEY (name, definition)
) STRICT, WITHOUT ROWID;

INSERT INTO budget_seen SELECT name, definition, seen FROM budget;
DROP TABLE budget;
ALTER TABLE budget_seen RENAME TO budget;
