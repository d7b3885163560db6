-- The ledger, first version. Money is whole nano-USD (1 USD = 1000000000); instants are epoch seconds, UTC.

-- What happened, in commit order. Rows are never updated and never deleted by a writer.
CREATE TABLE event (
    offset           INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id         BLOB    NOT NULL UNIQUE,   -- call_id, type, sequence number: time-prefixed, the same on replay
    event_type       TEXT    NOT NULL,
    call_id          BLOB    NOT NULL,          -- its first 6 bytes are the call's start in epoch milliseconds
    timestamp        REAL    NOT NULL,
    status           TEXT    NOT NULL,
    provider         TEXT,
    model            TEXT,
    operation        TEXT,
    usage            TEXT    NOT NULL,          -- JSON, tokens_in and tokens_out count every token
    cost             TEXT    NOT NULL,          -- JSON: currency, source, rates used
    cost_est_nusd    INTEGER,
    cost_actual_nusd INTEGER,
    spend_nusd       INTEGER,                   -- what this event adds to spend; NULL: nothing, or unpriced
    timing           TEXT    NOT NULL,          -- JSON, milliseconds
    http_status      INTEGER,
    category         TEXT,
    trace_id         BLOB,
    span_id          BLOB,
    profile_id       TEXT,
    user_id          TEXT,
    session_id       TEXT,
    run_id           TEXT,
    model_profile    TEXT,
    tags             TEXT    NOT NULL,          -- JSON
    records          TEXT    NOT NULL,          -- JSON
    charges          TEXT    NOT NULL,          -- JSON: [budget, scope, window_start, amount] for each balance it counts in
    estimated        INTEGER NOT NULL,
    reason           TEXT,
    error_type       TEXT,
    error_message    TEXT,
    attempts         INTEGER NOT NULL,
    schema_version   INTEGER NOT NULL
) STRICT;

-- The only secondary index on the write path: it grows at its right edge, so an insert costs the same at any size.
CREATE INDEX event_timestamp ON event (timestamp);

-- Counters, changed in the transaction of the events they count. Amounts are in the unit of the budget.
-- The budget '' is the ledger itself: USD per UTC day, scope '' for all and 'profile=...' for one profile.
CREATE TABLE balance (
    budget       TEXT    NOT NULL,
    scope        TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    spent        INTEGER NOT NULL,
    estimated    INTEGER NOT NULL,              -- the part of spent that is an estimate
    held         INTEGER NOT NULL,
    PRIMARY KEY (budget, scope, window_start)
) STRICT, WITHOUT ROWID;

-- Holds of calls in flight.
CREATE TABLE open_hold (
    hold_id BLOB PRIMARY KEY,                   -- event_id of the precheck_hold
    owner   TEXT NOT NULL,                      -- the process that settles it
    charges TEXT NOT NULL                       -- JSON, as in event.charges
) STRICT, WITHOUT ROWID;

-- The budgets last seen, so that any process can show a limit that was written in another one's code.
CREATE TABLE budget (
    name       TEXT PRIMARY KEY,
    definition TEXT NOT NULL,                   -- JSON
    seen       REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Facts about the ledger itself.
CREATE TABLE ledger_fact (
    name  TEXT PRIMARY KEY,                     -- 'hidden_up_to': the offset up to which reset() hides the events
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The ledger for people: spend in USD, one row for each event.
CREATE VIEW spend AS
SELECT offset, datetime(timestamp, 'unixepoch') AS at_utc, event_type, provider, model, operation,
       usage ->> 'tokens_in' AS tokens_in, usage ->> 'tokens_out' AS tokens_out,
       spend_nusd / 1e9 AS spend_usd, estimated, status, reason,
       profile_id, user_id, session_id, run_id, lower(hex(call_id)) AS call_id, lower(hex(trace_id)) AS trace_id
FROM event;
