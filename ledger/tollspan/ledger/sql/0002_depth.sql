-- What calls of one price share is kept once, and what the ledger needs to be pruned and searched at any size.

-- The JSON of `cost` (currency, source, rates used), each distinct text once: it was a third of every row.
CREATE TABLE pricing (
    pricing_id INTEGER PRIMARY KEY,
    cost       TEXT NOT NULL UNIQUE
) STRICT;

INSERT INTO pricing (cost) SELECT DISTINCT cost FROM event ORDER BY cost;
ALTER TABLE event ADD COLUMN response_id TEXT;      -- only where the answer can be fetched again, so that it counts once
ALTER TABLE event ADD COLUMN pricing_id INTEGER;
UPDATE event SET pricing_id = (SELECT pricing_id FROM pricing WHERE pricing.cost = event.cost);
ALTER TABLE event DROP COLUMN cost;

-- Events with their cost, as they were recorded.
CREATE VIEW recorded AS
SELECT event.*, pricing.cost FROM event JOIN pricing ON pricing.pricing_id = event.pricing_id;

-- What pruned events had counted: balance = opening + the log that is left + open holds.
CREATE TABLE opening (
    budget       TEXT    NOT NULL,
    scope        TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    spent        INTEGER NOT NULL,
    estimated    INTEGER NOT NULL,
    PRIMARY KEY (budget, scope, window_start)
) STRICT, WITHOUT ROWID;

-- Where to find a trace, a run, a session: filled behind the writer, because random keys in an index on the write path
-- would make every insert dearer as the ledger grows. A piece is a run of offsets, named by its last one; inside of it the
-- keys are sorted, so that the table only ever grows at its end. Complete up to ledger_fact 'indexed_up_to'.
CREATE TABLE lookup (
    piece  INTEGER NOT NULL,
    key    INTEGER NOT NULL,                        -- 64 bits of a digest: the rows it leads to are compared again
    offset INTEGER NOT NULL,
    PRIMARY KEY (piece, key, offset)
) STRICT, WITHOUT ROWID;

-- The runs of each piece, and where each was first seen in it.
CREATE TABLE run (
    piece        INTEGER NOT NULL,
    run_id       TEXT    NOT NULL,
    first_offset INTEGER NOT NULL,
    PRIMARY KEY (piece, run_id)
) STRICT, WITHOUT ROWID;
