"""Tables and statements of what one side has submitted to recorders.

One row a receipt from the moment that it is to be recorded, with its proof once it is; one row a
promise that is not kept yet; one row a recorder, with how far its chain of heads is verified and
why it is not used any more; one row a verified commit. Lives in the database of the side's own
book, broker's or user's.
"""

COMPONENT = "record_submissions"

STEPS = (
    """
    CREATE TABLE record_cursors (
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (user_address, provider, signer)
    );
    CREATE TABLE record_submitted (
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        receipt_digest TEXT NOT NULL,
        fee TEXT NOT NULL,
        trace_hash TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        recorder TEXT NOT NULL,
        assigned_at INTEGER NOT NULL,
        next_at INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        commit_by INTEGER NOT NULL,
        promise INTEGER NOT NULL,
        proof TEXT,
        PRIMARY KEY (user_address, provider, signer, sequence)
    );
    CREATE INDEX record_submitted_open ON record_submitted (state, next_at)
        WHERE state <> 'recorded';
    CREATE INDEX record_submitted_promise ON record_submitted (promise) WHERE promise > 0;
    CREATE TABLE record_promises (
        number INTEGER PRIMARY KEY,
        recorder TEXT NOT NULL,
        promise TEXT NOT NULL,
        entries TEXT NOT NULL
    );
    CREATE TABLE record_recorders (
        url TEXT PRIMARY KEY,
        address TEXT NOT NULL,
        number INTEGER NOT NULL,
        head TEXT NOT NULL,
        fault TEXT NOT NULL,
        reason TEXT NOT NULL,
        evidence TEXT NOT NULL,
        found_at INTEGER NOT NULL
    );
    CREATE TABLE record_heads (
        url TEXT NOT NULL,
        number INTEGER NOT NULL,
        head TEXT NOT NULL,
        PRIMARY KEY (url, number)
    )
    """,
)

UPSERT_CURSOR = (
    "INSERT INTO record_cursors (user_address, provider, signer, sequence) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (user_address, provider, signer) DO UPDATE SET sequence = excluded.sequence "
    "WHERE record_cursors.sequence < excluded.sequence"
)
INSERT_ENTRY = (
    "INSERT INTO record_submitted (user_address, provider, signer, sequence, receipt_digest, fee, "
    "trace_hash, state, reason, recorder, assigned_at, next_at, tries, commit_by, promise, proof) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, 'new', '', '', ?, 0, 0, 0, 0, NULL) ON CONFLICT DO NOTHING"
)
_ENTRY_COLUMNS = "user_address, provider, signer, sequence, receipt_digest, fee, trace_hash"
ROW_COLUMNS = (
    f"{_ENTRY_COLUMNS}, state, reason, recorder, assigned_at, tries, commit_by, promise, proof"
)
_SELECT = f"SELECT {ROW_COLUMNS} FROM record_submitted "  # noqa: S608 - our own constant
LIST_DUE = _SELECT + (
    "WHERE state IN ('new', 'waiting') AND next_at <= ? "
    "ORDER BY next_at, user_address, provider, signer, sequence LIMIT ?"
)
LIST_MATCHED = _SELECT + (
    "WHERE state = 'matched' AND recorder = ? AND next_at <= ? "
    "ORDER BY next_at, user_address, provider, signer, sequence LIMIT ?"
)
LIST_LATE = _SELECT + (
    "WHERE state = 'matched' AND recorder = ? AND commit_by > 0 AND commit_by < ? LIMIT ?"
)
LIST_WAITING = _SELECT + (
    "WHERE state = 'waiting' ORDER BY user_address, provider, signer, sequence LIMIT ?"
)
FIND_ENTRY = _SELECT + "WHERE user_address = ? AND provider = ? AND signer = ? AND sequence = ?"
COUNT_STATES = "SELECT state, COUNT(*) FROM record_submitted GROUP BY state"
LIST_USED = "SELECT DISTINCT recorder FROM record_submitted WHERE state = 'matched'"

_OF_KEY = "WHERE user_address = ? AND provider = ? AND signer = ? AND sequence = ?"
UPDATE_TAKEN = (
    "UPDATE record_submitted SET state = ?, reason = ?, recorder = ?, assigned_at = ?, "  # noqa: S608
    f"next_at = ?, tries = ?, commit_by = ?, promise = ? {_OF_KEY} AND state <> 'recorded'"
)
UPDATE_NEXT = f"UPDATE record_submitted SET next_at = ? {_OF_KEY}"  # noqa: S608 - our own constant
UPDATE_RECORDED = (
    "UPDATE record_submitted SET state = 'recorded', reason = '', proof = ?, promise = 0, "  # noqa: S608
    f"recorder = ? {_OF_KEY}"
)
RELEASE_ENTRIES = (
    "UPDATE record_submitted SET state = 'new', reason = '', recorder = '', next_at = 0, "
    "tries = 0, commit_by = 0, promise = 0 WHERE recorder = ? AND state <> 'recorded'"
)

INSERT_PROMISE = (
    "INSERT INTO record_promises (number, recorder, promise, entries) "
    "SELECT COALESCE(MAX(number), 0) + 1, ?, ?, ? FROM record_promises"
)
FIND_LAST_PROMISE = "SELECT COALESCE(MAX(number), 0) FROM record_promises"
FIND_PROMISE = "SELECT promise, entries FROM record_promises WHERE number = ?"
DELETE_KEPT_PROMISES = (
    "DELETE FROM record_promises WHERE NOT EXISTS "
    "(SELECT 1 FROM record_submitted s WHERE s.promise = record_promises.number)"
)

_RECORDER_COLUMNS = "url, address, number, head, fault, reason, evidence, found_at"
LIST_RECORDERS = f"SELECT {_RECORDER_COLUMNS} FROM record_recorders ORDER BY url"  # noqa: S608
FIND_RECORDER = f"SELECT {_RECORDER_COLUMNS} FROM record_recorders WHERE url = ?"  # noqa: S608
INSERT_RECORDER = (
    "INSERT INTO record_recorders (url, address, number, head, fault, reason, evidence, found_at) "
    "VALUES (?, ?, ?, ?, '', '', '', 0) ON CONFLICT DO NOTHING"
)
UPDATE_HEAD = "UPDATE record_recorders SET number = ?, head = ? WHERE url = ? AND number < ?"
UPDATE_FAULT = (
    "UPDATE record_recorders SET fault = ?, reason = ?, evidence = ?, found_at = ? "
    "WHERE url = ? AND fault = ''"
)
CLEAR_FAULT = "UPDATE record_recorders SET fault = '', reason = '' WHERE url = ?"
INSERT_HEAD = "INSERT INTO record_heads (url, number, head) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
FIND_HEAD = "SELECT head FROM record_heads WHERE url = ? AND number = ?"
DELETE_OLD_HEADS = "DELETE FROM record_heads WHERE url = ? AND number < ?"
