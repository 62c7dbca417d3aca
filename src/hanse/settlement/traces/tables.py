"""Tables and statements of the notes on traces.

One row a trace, found by its receipt's request hash and sub-account, by request id or by trace
hash; two rows of sealed keys beside it, in a table of their own, so that they can be destroyed
while the note stays. What was dropped is counted by reason.
"""

COMPONENT = "traces"

STEPS = (
    """
    CREATE TABLE traces (
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        request_hash TEXT NOT NULL,
        request_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        trace_hash TEXT NOT NULL UNIQUE,
        object_bytes INTEGER NOT NULL,
        location TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        has_object INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (user_address, provider, signer, request_hash)
    );
    CREATE INDEX traces_request ON traces (request_id);
    CREATE INDEX traces_time ON traces (state, created_at);
    CREATE INDEX traces_left ON traces (created_at)
        WHERE state IN ('lost', 'forgotten') AND has_object = 1;
    CREATE TABLE trace_keys (
        trace_hash TEXT NOT NULL,
        recipient TEXT NOT NULL,
        public_key TEXT NOT NULL,
        sealed TEXT NOT NULL,
        PRIMARY KEY (trace_hash, recipient)
    );
    CREATE TABLE trace_drops (
        reason TEXT PRIMARY KEY,
        dropped INTEGER NOT NULL,
        last_at INTEGER NOT NULL
    )
    """,
)

COLUMNS = (
    "user_address, provider, signer, request_hash, request_id, sequence, trace_hash, object_bytes, "
    "location, state, reason, has_object, created_at"
)
INSERT = (
    f"INSERT INTO traces ({COLUMNS}) "  # noqa: S608 - our own constant
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', '', 1, ?) ON CONFLICT DO NOTHING"
)
INSERT_KEY = (
    "INSERT INTO trace_keys (trace_hash, recipient, public_key, sealed) VALUES (?, ?, ?, ?)"
)
_FROM = f"SELECT {COLUMNS} FROM traces "  # noqa: S608 - our own constant
FIND_OF_RECEIPT = (
    _FROM + "WHERE user_address = ? AND provider = ? AND signer = ? AND request_hash = ?"
)
FIND_BY_ID = _FROM + "WHERE request_id = ? OR trace_hash = ? ORDER BY created_at LIMIT 3"
LIST_NEWEST = _FROM + "ORDER BY created_at DESC, trace_hash LIMIT ?"
LIST_PENDING = _FROM + "WHERE state = 'pending' AND created_at < ? ORDER BY created_at LIMIT ?"
LIST_OLD = _FROM + "WHERE state = 'stored' AND created_at < ? ORDER BY created_at LIMIT ?"
LIST_LEFT = (
    _FROM + "WHERE state IN ('lost', 'forgotten') AND has_object = 1 ORDER BY created_at LIMIT ?"
)
LIST_KEYS = "SELECT recipient, public_key, sealed FROM trace_keys WHERE trace_hash = ?"
UPDATE_STATE = "UPDATE traces SET state = ?, reason = ? WHERE trace_hash = ? AND state = ?"
FORGET = (
    "UPDATE traces SET state = ?, reason = ? "
    "WHERE trace_hash = ? AND state IN ('pending', 'stored')"
)
OVERWRITE_KEYS = "UPDATE trace_keys SET sealed = ? WHERE trace_hash = ?"
DELETE_KEYS = "DELETE FROM trace_keys WHERE trace_hash = ?"
MARK_DELETED = "UPDATE traces SET has_object = 0 WHERE trace_hash = ?"
COUNT_DROPS = (
    "INSERT INTO trace_drops (reason, dropped, last_at) VALUES (?, ?, ?) ON CONFLICT (reason) "
    "DO UPDATE SET dropped = trace_drops.dropped + excluded.dropped, last_at = excluded.last_at"
)
LIST_DROPS = "SELECT reason, dropped, last_at FROM trace_drops ORDER BY reason"
