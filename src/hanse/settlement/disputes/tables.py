"""Tables and statements of the user's disputes.

One row a rejected receipt, one row a dispute with its whole evidence, so that a dispute can be
raised, shown and exported from its row alone. Sequences and amounts are text, as everywhere in the
store: a hostile provider signs any number.
"""

COMPONENT = "disputes"

STEPS = (
    """
    CREATE TABLE rejected_receipts (
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        digest TEXT NOT NULL,
        sequence TEXT NOT NULL,
        receipt TEXT NOT NULL,
        reason TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        PRIMARY KEY (user_address, provider, signer, digest)
    );
    CREATE TABLE disputes (
        dispute_id TEXT PRIMARY KEY,
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        evidence TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        found_at INTEGER NOT NULL,
        next_try_at INTEGER NOT NULL,
        compensation TEXT NOT NULL,
        transaction_hash TEXT NOT NULL
    );
    CREATE INDEX disputes_sub_account ON disputes (user_address, provider, signer)
    """,
)

FIND_REJECTED = (
    "SELECT 1 FROM rejected_receipts "
    "WHERE user_address = ? AND provider = ? AND signer = ? AND digest = ?"
)
FIND_REJECTED_AT = (
    "SELECT 1 FROM rejected_receipts "
    "WHERE user_address = ? AND provider = ? AND signer = ? AND sequence = ? LIMIT 1"
)
FIND_HELD = (
    "SELECT r.receipt FROM voucher_receipts r "
    "JOIN voucher_sub_accounts s ON s.number = r.sub_account "
    "WHERE s.user_address = ? AND s.provider = ? AND s.signer = ? AND r.sequence = ?"
)
COUNT_REJECTED = (
    "SELECT COUNT(*) FROM rejected_receipts WHERE user_address = ? AND provider = ? AND signer = ?"
)
INSERT_REJECTED = (
    "INSERT INTO rejected_receipts (user_address, provider, signer, digest, sequence, receipt, "
    "reason, received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
LIST_REJECTED = (
    "SELECT sequence, receipt FROM rejected_receipts "
    "WHERE user_address = ? AND provider = ? AND signer = ? ORDER BY digest LIMIT ?"
)

_COLUMNS = (
    "dispute_id, evidence, state, reason, attempt, found_at, next_try_at, compensation, "
    "transaction_hash"
)
FIND_DISPUTE = f"SELECT {_COLUMNS} FROM disputes WHERE dispute_id = ?"  # noqa: S608 - our constant
LIST_DISPUTES = (
    f"SELECT {_COLUMNS} FROM disputes "  # noqa: S608 - our own constant
    "ORDER BY found_at DESC, dispute_id LIMIT ?"
)
COUNT_DISPUTES = (
    "SELECT COUNT(*) FROM disputes WHERE user_address = ? AND provider = ? AND signer = ?"
)
DELETE_OLDEST_ENDED = (
    "DELETE FROM disputes WHERE dispute_id = (SELECT dispute_id FROM disputes "
    "WHERE user_address = ? AND provider = ? AND signer = ? AND state IN ('futile', 'confirmed') "
    "ORDER BY state DESC, found_at, dispute_id LIMIT 1)"
)
INSERT_DISPUTE = (
    "INSERT INTO disputes (dispute_id, user_address, provider, signer, evidence, state, reason, "
    "attempt, found_at, next_try_at, compensation, transaction_hash) "
    "VALUES (?, ?, ?, ?, ?, 'found', '', 0, ?, ?, '0', '') ON CONFLICT DO NOTHING"
)
UPDATE_DISPUTE = (
    "UPDATE disputes SET state = ?, reason = ?, attempt = ?, next_try_at = ?, compensation = ?, "
    "transaction_hash = ? WHERE dispute_id = ? AND state = ? AND attempt = ?"
)
