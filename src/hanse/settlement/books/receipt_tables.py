"""Tables and statements of the provider's book.

One row a sub-account, one row a request (what was asked, and once finished what it cost), one row a
sealed answer. Amounts are text, as everywhere in the store; a sub-account's own sequence counts
what this broker finished and fits an integer, while `sequence_max` is the caller's and does not.

Indices: a request is found by (request id, signer), which also makes it unique; receipts and what
is at work by (sub-account, sequence), where no sequence means at work; what is due on chain by a
partial index that holds only such sub-accounts. Each index is a page or two more in every commit,
so a kept answer has none besides its place: sub-account and sequence in one number.
"""

COMPONENT = "receipt_book"

SEQUENCES = 2**40
"""Places of one sub-account in `receipt_answers`: more than it ever has sequences; 2^23 times as
many fit an integer."""

STEPS = (
    """
    CREATE TABLE receipt_book_owner (
        provider TEXT PRIMARY KEY,
        chain_id TEXT NOT NULL,
        escrow TEXT NOT NULL
    );
    CREATE TABLE receipt_sub_accounts (
        number INTEGER PRIMARY KEY,
        user_address TEXT NOT NULL,
        signer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        cumulative_fee TEXT NOT NULL,
        reserved TEXT NOT NULL,
        in_flight INTEGER NOT NULL,
        cumulative_max TEXT NOT NULL,
        sequence_max TEXT NOT NULL,
        best_request_id TEXT NOT NULL,
        settled_fee TEXT NOT NULL,
        due INTEGER NOT NULL,
        UNIQUE (user_address, signer)
    );
    CREATE INDEX receipt_sub_accounts_due ON receipt_sub_accounts (due) WHERE due = 1;
    CREATE TABLE receipt_requests (
        request_id TEXT NOT NULL,
        signer TEXT NOT NULL,
        sub_account INTEGER NOT NULL REFERENCES receipt_sub_accounts (number),
        request_hash TEXT NOT NULL,
        offer_hash TEXT NOT NULL,
        body_hash TEXT NOT NULL,
        maximum_fee TEXT NOT NULL,
        deadline INTEGER NOT NULL,
        cumulative_max TEXT NOT NULL,
        sequence_max TEXT NOT NULL,
        signature TEXT NOT NULL,
        admitted_at INTEGER NOT NULL,
        sequence INTEGER,
        receipt TEXT,
        PRIMARY KEY (request_id, signer)
    );
    CREATE UNIQUE INDEX receipt_requests_sequence ON receipt_requests (sub_account, sequence);
    CREATE TABLE receipt_answers (
        sub_account INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY (sub_account, sequence)
    );
    CREATE INDEX receipt_answers_expiry ON receipt_answers (expires_at);
    CREATE INDEX receipt_answers_request ON receipt_answers (sub_account, request_id)
    """,
    # which process admitted it; "" where one process has the database to itself
    "ALTER TABLE receipt_requests ADD COLUMN instance TEXT NOT NULL DEFAULT ''",
    # an answer is found through its request: one index less to write for each
    "DROP INDEX receipt_answers_request",
    f"""
    CREATE TABLE receipt_answers_by_place (
        place INTEGER PRIMARY KEY,
        expires_at INTEGER NOT NULL,
        sealed BLOB NOT NULL
    );
    INSERT INTO receipt_answers_by_place (place, expires_at, sealed)
        SELECT sub_account * {SEQUENCES} + sequence, expires_at, sealed FROM receipt_answers;
    DROP TABLE receipt_answers;
    ALTER TABLE receipt_answers_by_place RENAME TO receipt_answers
    """,  # noqa: S608 - our own constant
)

FIND_OWNER = "SELECT provider, chain_id, escrow FROM receipt_book_owner"
INSERT_OWNER = "INSERT INTO receipt_book_owner (provider, chain_id, escrow) VALUES (?, ?, ?)"

_BOOK_COLUMNS = (
    "s.number, s.sequence, s.cumulative_fee, s.reserved, s.in_flight, s.cumulative_max, "
    "s.sequence_max, s.settled_fee"
)
FIND_BOOK = (
    f"SELECT {_BOOK_COLUMNS} FROM receipt_sub_accounts s "  # noqa: S608 - our own constant
    "WHERE s.user_address = ? AND s.signer = ?"
)
FIND_AT_WORK = (
    f"SELECT {_BOOK_COLUMNS}, r.request_id, r.receipt FROM receipt_sub_accounts s "  # noqa: S608 - the same
    "LEFT JOIN receipt_requests r ON r.request_id = ? AND r.signer = ? WHERE s.number = ?"
)
INSERT_BOOK = (
    "INSERT INTO receipt_sub_accounts (number, user_address, signer, sequence, cumulative_fee, "
    "reserved, in_flight, cumulative_max, sequence_max, best_request_id, settled_fee, due) "
    "SELECT COALESCE(MAX(number), 0) + 1, ?, ?, 0, '0', '0', 0, '0', '0', '', '0', 0 "
    "FROM receipt_sub_accounts"
)
UPDATE_RESERVED = "UPDATE receipt_sub_accounts SET reserved = ?, in_flight = ? WHERE number = ?"
UPDATE_BEST = (
    "UPDATE receipt_sub_accounts SET reserved = ?, in_flight = ?, cumulative_max = ?, "
    "sequence_max = ?, best_request_id = ? WHERE number = ?"
)
UPDATE_FINISHED = (
    "UPDATE receipt_sub_accounts SET sequence = ?, cumulative_fee = ?, reserved = ?, "
    "in_flight = ? WHERE number = ?"
)
UPDATE_DUE = "UPDATE receipt_sub_accounts SET due = 1 WHERE number = ?"
"""Apart from the rest: SQLite writes an index anew when its column is set, be it to what it was."""
UPDATE_SETTLED = "UPDATE receipt_sub_accounts SET settled_fee = ?, due = ? WHERE number = ?"

INSERT_REQUEST = (
    "INSERT INTO receipt_requests (request_id, signer, sub_account, request_hash, offer_hash, "
    "body_hash, maximum_fee, deadline, cumulative_max, sequence_max, signature, admitted_at, "
    "instance) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
FIND_RECEIPT = "SELECT receipt FROM receipt_requests WHERE request_id = ? AND signer = ?"
UPDATE_REQUEST_FINISHED = (
    "UPDATE receipt_requests SET sequence = ?, receipt = ? "
    "WHERE request_id = ? AND signer = ? AND sequence IS NULL"
)
LIST_RECEIPTS = (
    "SELECT request_id, receipt FROM receipt_requests "
    "WHERE sub_account = ? AND sequence > ? ORDER BY sequence LIMIT ?"
)
LIST_IN_FLIGHT = (
    "SELECT request_id FROM receipt_requests WHERE sub_account = ? AND sequence IS NULL LIMIT ?"
)
LIST_BUSY = (
    "SELECT number, user_address, signer, in_flight, reserved FROM receipt_sub_accounts "
    "WHERE in_flight > 0 OR reserved <> '0'"
)
LIST_OPEN = (
    "SELECT request_id, request_hash, maximum_fee, instance FROM receipt_requests "
    "WHERE sub_account = ? AND sequence IS NULL ORDER BY admitted_at, request_id"
)
LIST_DUE = (
    "SELECT s.user_address, s.signer, s.cumulative_fee, s.sequence, s.settled_fee, "
    "s.cumulative_max, s.sequence_max, r.request_hash, r.signature "
    "FROM receipt_sub_accounts s JOIN receipt_requests r "
    "ON r.request_id = s.best_request_id AND r.signer = s.signer WHERE s.due = 1 "
    # of more than are looked at the largest: else dust that came first would hide what is worth it
    "ORDER BY CAST(s.cumulative_fee AS DOUBLE PRECISION) "
    "- CAST(s.settled_fee AS DOUBLE PRECISION) DESC LIMIT ?"
)

INSERT_ANSWER = "INSERT INTO receipt_answers (place, expires_at, sealed) VALUES (?, ?, ?)"
FIND_ANSWER = (
    "SELECT a.sealed FROM receipt_requests r JOIN receipt_answers a "  # noqa: S608 - our own constant
    f"ON a.place = r.sub_account * {SEQUENCES} + r.sequence "
    "WHERE r.request_id = ? AND r.signer = ? AND r.sub_account = ? AND a.expires_at > ?"
)
DELETE_ACKNOWLEDGED = "DELETE FROM receipt_answers WHERE place > ? AND place <= ?"
DELETE_OLD = (
    "DELETE FROM receipt_answers WHERE expires_at <= ? OR place <= "  # noqa: S608 - our own constant
    f"(SELECT s.number * {SEQUENCES} + s.sequence FROM receipt_sub_accounts s "
    f"WHERE s.number = receipt_answers.place / {SEQUENCES}) - ?"
)


def get_place(sub_account: int, sequence: int) -> int:
    """Where a kept answer stands."""
    return sub_account * SEQUENCES + sequence
