"""The tables of a ledger in PostgreSQL.

No foreign keys: the pool that holds the ledger is the only one that writes, and checks by itself
what they would check row by row.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE ledger (  -- one row; `BEGIN_LEDGER` makes it
    version INTEGER NOT NULL,        -- of these tables
    holder TEXT,                     -- the pool that has it, or had it last
    backend INTEGER,                 -- the server process that holds its lock
    openings BIGINT NOT NULL,        -- how often it was opened
    writes BIGINT NOT NULL,          -- how many transactions were committed
    last_position BIGINT NOT NULL,   -- the highest ever given to an ending
    unfinished BIGINT NOT NULL       -- how many tasks have no ending
);

CREATE TABLE meta (
    key TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE output_types (
    digest TEXT COLLATE "C" PRIMARY KEY,
    schema TEXT NOT NULL  -- JSON
);

CREATE TABLE tasks (
    number BIGINT PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    role TEXT,
    timeout DOUBLE PRECISION,  -- seconds
    session TEXT,
    only_worker TEXT,          -- the one that may run it
    output_type TEXT,          -- digest
    priority INTEGER NOT NULL,
    tenant TEXT,
    hedge_after TEXT,          -- seconds, or a percentile
    race TEXT,                 -- tasks of one run on different workers
    fingerprint BYTEA NOT NULL,  -- of what was asked, and of which model
    metadata TEXT,             -- JSON
    prompt TEXT,               -- the prompt, when it is a text
    messages TEXT              -- the prompt, when it is messages: JSON
);

CREATE TABLE lanes (  -- what tasks that wait for one another have in common
    lane BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,  -- the other columns as JSON
    role TEXT,
    tenant TEXT,
    priority INTEGER NOT NULL
);

CREATE TABLE unfinished (  -- the tasks without an ending
    number BIGINT PRIMARY KEY,
    lane BIGINT  -- none: bound to a session, a race or a worker
);

CREATE INDEX unfinished_lanes ON unfinished (lane, number) WHERE lane IS NOT NULL;
CREATE INDEX unfinished_bound ON unfinished (number) WHERE lane IS NULL;

CREATE TABLE endings (
    position BIGINT PRIMARY KEY,  -- the order of completion
    number BIGINT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    worker TEXT,
    attempts BIGINT NOT NULL,
    completed_at BIGINT NOT NULL,  -- milliseconds since the epoch
    duration_ms DOUBLE PRECISION,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    model TEXT,
    stop_reason TEXT,
    session_id TEXT,
    cost_usd DOUBLE PRECISION,
    turns BIGINT NOT NULL,
    text TEXT,
    answers TEXT,  -- those that did not fit the output type: JSON
    error TEXT     -- JSON: kind, type, message, traceback
);

CREATE INDEX failed ON endings (number) WHERE state = 'failed';

CREATE TABLE sent (  -- the unfinished tasks that a worker may have begun
    number BIGINT PRIMARY KEY,
    worker BIGINT NOT NULL  -- its number
);

CREATE TABLE deaths (  -- of workers that had a task
    place BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number BIGINT NOT NULL,
    worker TEXT NOT NULL,
    died_at BIGINT NOT NULL,  -- milliseconds since the epoch
    reason TEXT NOT NULL
);

CREATE INDEX deaths_of_tasks ON deaths (number);

CREATE TABLE totals (  -- sums over endings, kept as they are recorded
    state TEXT COLLATE "C" PRIMARY KEY,
    endings BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    unpriced BIGINT NOT NULL
);
INSERT INTO totals
SELECT state, 0, 0, 0, 0, 0, 0, 0 FROM unnest(ARRAY['completed', 'failed', 'cancelled']) AS state;

CREATE TABLE extra (  -- one row: sums of what was spent in vain, or is in no ending
    turns BIGINT NOT NULL,
    turns_usd DOUBLE PRECISION NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    usage_usd DOUBLE PRECISION NOT NULL,
    kept_usd DOUBLE PRECISION NOT NULL,
    kept_tokens BIGINT NOT NULL,
    maybe_billed BIGINT NOT NULL
);
INSERT INTO extra VALUES (0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE session_turns (  -- what completed tasks added to the sessions that they named
    number BIGINT PRIMARY KEY,
    session TEXT COLLATE "C" NOT NULL,
    place BIGINT NOT NULL,      -- in the session, from 1
    is_whole BOOLEAN NOT NULL,  -- the session has dropped what came before
    messages TEXT NOT NULL,     -- JSON
    UNIQUE (session, place)
);

CREATE INDEX whole_turns ON session_turns (session, place) WHERE is_whole;

CREATE TABLE snapshots (  -- the last of each agent
    worker TEXT COLLATE "C" PRIMARY KEY,
    snapshot TEXT NOT NULL  -- JSON
);
"""

BEGIN_LEDGER = "INSERT INTO ledger VALUES (%s, NULL, NULL, 0, 0, 0, 0)"
