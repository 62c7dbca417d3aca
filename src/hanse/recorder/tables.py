"""Tables and statements of a recorder's book.

One row an entry that waits for the other side's, one row a leaf once both agree, one row a commit,
and the hashes of a commit's tree in parts (`hanse.recorder.nodes`). What each party matched today
is counted in one row each (`hanse.recorder.shares`), with an empty user and signer for a provider
as a whole. Amounts are text, as everywhere
in the store.

Indices: waiting entries by sub-account and sequence (which also makes them unique for a side), by
provider and by signer in the order of their pages for whoever asks for its own, by age for the
sweep. Leaves by the same key (unique: a sequence is recorded once) and by commit; those in no
commit yet by a partial index that holds only them, and so those of an older version without place.
"""

COMPONENT = "recorder_book"

STEPS = (
    """
    CREATE TABLE recorder_owner (
        recorder TEXT PRIMARY KEY,
        chain_id TEXT NOT NULL,
        escrow TEXT NOT NULL,
        records TEXT NOT NULL
    );
    CREATE TABLE record_waiting (
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        side INTEGER NOT NULL,
        receipt_digest TEXT NOT NULL,
        fee TEXT NOT NULL,
        trace_hash TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        PRIMARY KEY (user_address, provider, signer, side, sequence)
    );
    CREATE INDEX record_waiting_provider ON record_waiting (provider);
    CREATE INDEX record_waiting_signer ON record_waiting (signer);
    CREATE INDEX record_waiting_age ON record_waiting (received_at);
    CREATE TABLE record_commits (
        number INTEGER PRIMARY KEY,
        root TEXT NOT NULL,
        leaves INTEGER NOT NULL,
        fee_total TEXT NOT NULL,
        previous_head TEXT NOT NULL,
        head TEXT NOT NULL,
        transaction_hash TEXT NOT NULL,
        block_number INTEGER NOT NULL,
        is_confirmed INTEGER NOT NULL
    );
    CREATE TABLE record_leaves (
        ordinal INTEGER PRIMARY KEY,
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        receipt_digest TEXT NOT NULL,
        fee TEXT NOT NULL,
        user_trace_hash TEXT NOT NULL,
        provider_trace_hash TEXT NOT NULL,
        commit_by INTEGER NOT NULL,
        commit_number INTEGER REFERENCES record_commits (number),
        UNIQUE (user_address, provider, signer, sequence)
    );
    CREATE INDEX record_leaves_commit ON record_leaves (commit_number);
    CREATE INDEX record_leaves_open ON record_leaves (ordinal) WHERE commit_number IS NULL
    """,
    """
    ALTER TABLE record_leaves ADD COLUMN place INTEGER;
    CREATE INDEX record_leaves_unplaced ON record_leaves (commit_number)
        WHERE place IS NULL AND commit_number IS NOT NULL;
    CREATE TABLE record_nodes (
        commit_number INTEGER NOT NULL REFERENCES record_commits (number),
        level INTEGER NOT NULL,
        place INTEGER NOT NULL,
        hashes BLOB NOT NULL,
        PRIMARY KEY (commit_number, level, place)
    )
    """,
    """
    CREATE INDEX record_waiting_page_of_signer
        ON record_waiting (signer, provider, user_address, sequence, side);
    CREATE INDEX record_waiting_page_of_provider
        ON record_waiting (provider, signer, user_address, sequence, side);
    DROP INDEX record_waiting_provider;
    DROP INDEX record_waiting_signer
    """,
    """
    CREATE INDEX record_leaves_open_of_provider ON record_leaves (provider)
        WHERE commit_number IS NULL
    """,
    """
    CREATE TABLE record_days (
        day INTEGER NOT NULL,
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        leaves INTEGER NOT NULL,
        PRIMARY KEY (day, provider, user_address, signer)
    )
    """,
)

FIND_OWNER = "SELECT recorder, chain_id, escrow, records FROM recorder_owner"
INSERT_OWNER = (
    "INSERT INTO recorder_owner (recorder, chain_id, escrow, records) VALUES (?, ?, ?, ?)"
)

_OF_KEY = "WHERE user_address = ? AND provider = ? AND signer = ?"
FIND_WAITING = (
    f"SELECT receipt_digest, fee, trace_hash FROM record_waiting {_OF_KEY} "  # noqa: S608 - ours
    "AND side = ? AND sequence = ?"
)
COUNT_WAITING = f"SELECT COUNT(*) FROM record_waiting {_OF_KEY} AND side = ?"  # noqa: S608 - ours
UPSERT_WAITING = (
    "INSERT INTO record_waiting (user_address, provider, signer, side, sequence, receipt_digest, "
    "fee, trace_hash, received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (user_address, provider, signer, side, sequence) DO UPDATE SET "
    "receipt_digest = excluded.receipt_digest, fee = excluded.fee, "
    "trace_hash = excluded.trace_hash"
)
DELETE_WAITING = f"DELETE FROM record_waiting {_OF_KEY} AND sequence = ?"  # noqa: S608 - ours
DELETE_OLD = "DELETE FROM record_waiting WHERE received_at < ?"
_WAITING_COLUMNS = "user_address, provider, signer, sequence, side, receipt_digest, fee, trace_hash"
LIST_WAITING_OF_PROVIDER = (
    f"SELECT {_WAITING_COLUMNS} FROM record_waiting WHERE provider = ? "  # noqa: S608 - ours
    "AND (signer, user_address, sequence) > (?, ?, ?) "
    "ORDER BY signer, user_address, sequence, side LIMIT ?"
)
LIST_WAITING_OF_SIGNER = (
    f"SELECT {_WAITING_COLUMNS} FROM record_waiting WHERE signer = ? "  # noqa: S608 - ours
    "AND (provider, user_address, sequence) > (?, ?, ?) "
    "ORDER BY provider, user_address, sequence, side LIMIT ?"
)
COUNT_ALL_WAITING = "SELECT COUNT(*) FROM record_waiting"

FIND_DAY = f"SELECT leaves FROM record_days {_OF_KEY} AND day = ?"  # noqa: S608 - ours
UPSERT_DAY = (
    "INSERT INTO record_days (day, user_address, provider, signer, leaves) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (day, provider, user_address, signer) DO UPDATE SET leaves = excluded.leaves"
)
DELETE_DAYS = "DELETE FROM record_days WHERE day < ?"

FIND_LEAF = (
    "SELECT l.receipt_digest, l.fee, l.commit_by, COALESCE(c.is_confirmed, 0), "
    "l.user_trace_hash, l.provider_trace_hash "
    "FROM record_leaves l LEFT JOIN record_commits c ON c.number = l.commit_number "
    "WHERE l.user_address = ? AND l.provider = ? AND l.signer = ? AND l.sequence = ?"
)
INSERT_LEAF = (
    "INSERT INTO record_leaves (ordinal, user_address, provider, signer, sequence, receipt_digest, "
    "fee, user_trace_hash, provider_trace_hash, commit_by, commit_number) "
    "SELECT COALESCE(MAX(ordinal), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL FROM record_leaves"
)
COUNT_OPEN_OF_PROVIDER = (
    "SELECT COUNT(*) FROM record_leaves WHERE commit_number IS NULL AND provider = ?"
)
COUNT_OPEN = "SELECT COUNT(*) FROM record_leaves WHERE commit_number IS NULL"
_LEAF_COLUMNS = (
    "user_address, provider, signer, sequence, receipt_digest, fee, user_trace_hash, "
    "provider_trace_hash"
)
LIST_OPEN_LEAVES = (
    f"SELECT ordinal, {_LEAF_COLUMNS} FROM record_leaves "  # noqa: S608 - ours
    "WHERE commit_number IS NULL ORDER BY ordinal LIMIT ?"
)
LIST_LEAVES = f"SELECT {_LEAF_COLUMNS} FROM record_leaves WHERE commit_number = ?"  # noqa: S608
_SET_PLACES = (
    "FROM (SELECT ordinal AS of_leaf, ROW_NUMBER() OVER "
    "(ORDER BY user_address, provider, signer, sequence) - 1 AS of_tree FROM record_leaves "
)
UPDATE_LEAVES = (
    f"UPDATE record_leaves SET commit_number = ?, place = found.of_tree {_SET_PLACES}"  # noqa: S608
    "WHERE commit_number IS NULL AND ordinal <= ?) AS found "
    "WHERE record_leaves.ordinal = found.of_leaf"
)
UPDATE_PLACES = (
    f"UPDATE record_leaves SET place = found.of_tree {_SET_PLACES}"  # noqa: S608 - ours
    "WHERE commit_number = ?) AS found WHERE record_leaves.ordinal = found.of_leaf"
)
FIND_UNPLACED = (
    "SELECT MIN(commit_number) FROM record_leaves WHERE place IS NULL AND commit_number IS NOT NULL"
)
INSERT_NODES = "INSERT INTO record_nodes (commit_number, level, place, hashes) VALUES (?, ?, ?, ?)"
FIND_NODES = "SELECT hashes FROM record_nodes WHERE commit_number = ? AND level = ? AND place = ?"

_COMMIT_COLUMNS = (
    "number, root, leaves, fee_total, previous_head, head, transaction_hash, block_number, "
    "is_confirmed"
)
INSERT_COMMIT = (
    f"INSERT INTO record_commits ({_COMMIT_COLUMNS}) "  # noqa: S608 - ours
    "VALUES (?, ?, ?, ?, ?, ?, '', 0, 0)"
)
FIND_LAST_COMMIT = f"SELECT {_COMMIT_COLUMNS} FROM record_commits ORDER BY number DESC LIMIT 1"  # noqa: S608
FIND_PROVEN = (
    "SELECT l.receipt_digest, l.user_trace_hash, l.provider_trace_hash, l.place, c.number, c.root, "
    "c.leaves, c.fee_total, c.previous_head, c.head, c.transaction_hash, c.block_number, "
    "c.is_confirmed "
    "FROM record_leaves l JOIN record_commits c ON c.number = l.commit_number "
    "WHERE l.user_address = ? AND l.provider = ? AND l.signer = ? AND l.sequence = ? "
    "AND c.is_confirmed = 1"
)
LIST_COMMITS = (
    f"SELECT {_COMMIT_COLUMNS} FROM record_commits WHERE number > ? "  # noqa: S608 - ours
    "ORDER BY number LIMIT ?"
)
UPDATE_CONFIRMED = (
    "UPDATE record_commits SET transaction_hash = ?, block_number = ?, is_confirmed = 1 "
    "WHERE number = ? AND is_confirmed = 0"
)
