"""The tables of a ledger in SQLite."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE output_types (  -- apart from meta: there may be many, and users wrote them
    digest TEXT PRIMARY KEY,
    schema TEXT NOT NULL  -- JSON
) STRICT;

CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    role TEXT,
    timeout REAL,      -- seconds
    session TEXT,
    only_worker TEXT,  -- the one that may run it
    output_type TEXT,  -- digest
    priority INTEGER NOT NULL,
    tenant TEXT,
    hedge_after TEXT,  -- seconds, or a percentile
    race TEXT,         -- tasks of one run on different workers
    fingerprint BLOB NOT NULL DEFAULT x'',  -- of what was asked, and of which model
    metadata TEXT,     -- JSON
    prompt TEXT,       -- the prompt, when it is a text
    messages TEXT,     -- the prompt, when it is messages: JSON
    CHECK ((prompt IS NULL) <> (messages IS NULL))
) STRICT;

CREATE TABLE lanes (  -- what tasks that wait for one another have in common
    lane INTEGER PRIMARY KEY,
    role TEXT,
    tenant TEXT,
    priority INTEGER NOT NULL
) STRICT;

CREATE INDEX lane_names ON lanes (priority, role, tenant);

CREATE TABLE unfinished (  -- the tasks without an ending
    number INTEGER PRIMARY KEY REFERENCES tasks,
    lane INTEGER REFERENCES lanes  -- none: bound to a session, a race or a worker
) STRICT;

CREATE INDEX unfinished_lanes ON unfinished (lane);

CREATE TABLE endings (
    position INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of completion
    number INTEGER NOT NULL UNIQUE REFERENCES tasks,
    state TEXT NOT NULL CHECK (state IN ('completed', 'failed', 'cancelled')),
    worker TEXT,
    attempts INTEGER NOT NULL,
    completed_at INTEGER NOT NULL,  -- milliseconds since the epoch
    duration_ms REAL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    model TEXT,
    stop_reason TEXT,
    session_id TEXT,
    cost_usd REAL,
    turns INTEGER NOT NULL,
    text TEXT,
    answers TEXT,  -- those that did not fit the output type: JSON
    error TEXT  -- JSON: kind, type, message, traceback
) STRICT;

CREATE INDEX failed ON endings (number) WHERE state = 'failed';

CREATE TABLE sent (  -- the unfinished tasks that a worker may have begun
    number INTEGER PRIMARY KEY REFERENCES tasks,
    worker INTEGER NOT NULL  -- its number
) STRICT;

CREATE TABLE deaths (  -- of workers that had a task
    place INTEGER PRIMARY KEY,
    number INTEGER NOT NULL REFERENCES tasks,
    worker TEXT NOT NULL,
    died_at INTEGER NOT NULL,  -- milliseconds since the epoch
    reason TEXT NOT NULL
) STRICT;

CREATE INDEX deaths_of_tasks ON deaths (number);

CREATE TABLE totals (  -- sums over endings, kept as they are recorded
    state TEXT PRIMARY KEY,
    endings INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    unpriced INTEGER NOT NULL
) STRICT;

-- One row: sums of what was spent in vain, or is in no ending. The turns are those whose answer was
-- not needed; tokens and usage_usd are in no ending; what is kept is counted by the budget, for
-- attempts that may have cost more than they told, as those that a death has cut short.
CREATE TABLE extra (
    turns INTEGER NOT NULL,
    turns_usd REAL NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    usage_usd REAL NOT NULL,
    kept_usd REAL NOT NULL,
    kept_tokens INTEGER NOT NULL,
    maybe_billed INTEGER NOT NULL
) STRICT;
INSERT INTO extra VALUES (0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE session_turns (  -- what completed tasks added to the sessions that they named
    number INTEGER PRIMARY KEY REFERENCES tasks,
    session TEXT NOT NULL,
    place INTEGER NOT NULL,     -- in the session, from 1
    is_whole INTEGER NOT NULL,  -- 1: the session has dropped what came before
    messages TEXT NOT NULL,     -- JSON
    UNIQUE (session, place)
) STRICT;

CREATE INDEX whole_turns ON session_turns (session, place) WHERE is_whole;

CREATE TABLE snapshots (  -- the last of each agent
    worker TEXT PRIMARY KEY,
    snapshot TEXT NOT NULL  -- JSON
) STRICT;
"""
