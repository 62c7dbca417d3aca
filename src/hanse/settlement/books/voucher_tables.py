"""Tables and statements of the user's book.

One row a sub-account, one row a voucher (with the request it buys), one row an offer that a voucher
names, one row a receipt. A second receipt for a sequence or a request is evidence of dishonesty and
goes to a table of its own, so that the first is never replaced.

Receipts are found by (sub-account, sequence), vouchers by request id and by request hash; those
whose end is unknown by a partial index that holds only them. A receipt is found by its request id
through the voucher, which names its sequence: an index of random ids is two pages in every commit.
"""

from hanse.settlement.books import voucher_keys

COMPONENT = "voucher_book"

STEPS = (
    """
    CREATE TABLE voucher_book_owner (chain_id TEXT NOT NULL, escrow TEXT NOT NULL);
    CREATE TABLE voucher_sub_accounts (
        number INTEGER PRIMARY KEY,
        user_address TEXT NOT NULL,
        provider TEXT NOT NULL,
        signer TEXT NOT NULL,
        acknowledged INTEGER NOT NULL,
        acknowledged_fee TEXT NOT NULL,
        in_flight INTEGER NOT NULL,
        in_flight_fee TEXT NOT NULL,
        highest_cumulative_max TEXT NOT NULL,
        highest_sequence_max INTEGER NOT NULL,
        held INTEGER NOT NULL,
        disputed TEXT NOT NULL,
        UNIQUE (user_address, provider, signer)
    );
    CREATE TABLE voucher_offers (
        offer_hash TEXT PRIMARY KEY,
        offer TEXT NOT NULL
    );
    CREATE TABLE vouchers (
        request_id TEXT PRIMARY KEY,
        sub_account INTEGER NOT NULL REFERENCES voucher_sub_accounts (number),
        request_hash TEXT NOT NULL UNIQUE,
        offer_hash TEXT NOT NULL REFERENCES voucher_offers (offer_hash),
        receipt_key TEXT NOT NULL,
        body_hash TEXT NOT NULL,
        body_bytes INTEGER NOT NULL,
        output_tokens_max INTEGER NOT NULL,
        path TEXT NOT NULL,
        maximum_fee TEXT NOT NULL,
        deadline INTEGER NOT NULL,
        cumulative_max TEXT NOT NULL,
        sequence_max INTEGER NOT NULL,
        signature TEXT NOT NULL,
        answer_key BLOB NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        response_hash TEXT,
        response_bytes INTEGER NOT NULL,
        is_complete INTEGER NOT NULL,
        issued_at INTEGER NOT NULL
    );
    CREATE INDEX vouchers_open ON vouchers (sub_account) WHERE state = 'issued';
    CREATE TABLE voucher_receipts (
        sub_account INTEGER NOT NULL REFERENCES voucher_sub_accounts (number),
        sequence INTEGER NOT NULL,
        request_id TEXT,
        request_hash TEXT NOT NULL,
        receipt TEXT NOT NULL,
        fee TEXT NOT NULL,
        cumulative_fee TEXT NOT NULL,
        reserved TEXT,
        verification TEXT NOT NULL,
        reason TEXT NOT NULL,
        is_acknowledged INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        PRIMARY KEY (sub_account, sequence)
    );
    CREATE INDEX voucher_receipts_request ON voucher_receipts (request_id);
    CREATE INDEX voucher_receipts_time ON voucher_receipts (received_at);
    CREATE TABLE voucher_conflicts (
        sub_account INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        receipt TEXT NOT NULL,
        reason TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        PRIMARY KEY (sub_account, sequence, receipt)
    )
    """,
    voucher_keys.STEP,
    """
    ALTER TABLE vouchers ADD COLUMN receipt_sequence INTEGER;
    UPDATE vouchers SET receipt_sequence = (
        SELECT r.sequence FROM voucher_receipts r WHERE r.request_id = vouchers.request_id LIMIT 1
    ) WHERE state = 'receipted';
    DROP INDEX voucher_receipts_request
    """,
)

FIND_OWNER = "SELECT chain_id, escrow FROM voucher_book_owner"
INSERT_OWNER = "INSERT INTO voucher_book_owner (chain_id, escrow) VALUES (?, ?)"

SUB_ACCOUNT_COLUMNS = (
    "number, acknowledged, acknowledged_fee, in_flight, in_flight_fee, highest_cumulative_max, "
    "highest_sequence_max, held, disputed, user_address, provider, signer"
)
FIND_SUB_ACCOUNT = (
    f"SELECT {SUB_ACCOUNT_COLUMNS} FROM voucher_sub_accounts "  # noqa: S608 - our own constant
    "WHERE user_address = ? AND provider = ? AND signer = ?"
)
FIND_SUB_ACCOUNT_AND_VOUCHER = (
    f"SELECT {SUB_ACCOUNT_COLUMNS}, request_id, state, maximum_fee, sub_account "  # noqa: S608
    "FROM voucher_sub_accounts LEFT JOIN vouchers ON request_hash = ? "
    "WHERE user_address = ? AND provider = ? AND signer = ?"
)
FIND_SUB_ACCOUNT_BY_NUMBER = (
    f"SELECT {SUB_ACCOUNT_COLUMNS} FROM voucher_sub_accounts WHERE number = ?"  # noqa: S608
)
LIST_SUB_ACCOUNTS = (
    f"SELECT {SUB_ACCOUNT_COLUMNS} FROM voucher_sub_accounts ORDER BY number LIMIT ?"  # noqa: S608
)
INSERT_SUB_ACCOUNT = (
    "INSERT INTO voucher_sub_accounts (number, user_address, provider, signer, acknowledged, "
    "acknowledged_fee, in_flight, in_flight_fee, highest_cumulative_max, highest_sequence_max, "
    "held, disputed) "
    "SELECT COALESCE(MAX(number), 0) + 1, ?, ?, ?, ?, ?, 0, '0', ?, ?, 0, '' "
    "FROM voucher_sub_accounts"
)
UPDATE_SUB_ACCOUNT = (
    "UPDATE voucher_sub_accounts SET acknowledged = ?, acknowledged_fee = ?, in_flight = ?, "
    "in_flight_fee = ?, highest_cumulative_max = ?, highest_sequence_max = ?, held = ?, "
    "disputed = ? WHERE number = ?"
)

INSERT_OFFER = "INSERT INTO voucher_offers (offer_hash, offer) VALUES (?, ?) ON CONFLICT DO NOTHING"

INSERT_VOUCHER = (
    "INSERT INTO vouchers (request_id, sub_account, request_hash, offer_hash, receipt_key, "
    "body_hash, body_bytes, output_tokens_max, path, maximum_fee, deadline, cumulative_max, "
    "sequence_max, signature, answer_key, state, reason, response_hash, response_bytes, "
    "is_complete, issued_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'issued', '', NULL, 0, 0, ?)"
)
VOUCHER_COLUMNS = (
    "v.request_id, v.request_hash, v.offer_hash, v.receipt_key, v.body_hash, v.body_bytes, "
    "v.output_tokens_max, v.path, v.maximum_fee, v.deadline, v.cumulative_max, v.sequence_max, "
    "v.signature, v.answer_key, v.state, v.response_hash, v.response_bytes, v.is_complete, "
    "v.issued_at, o.offer, s.user_address, s.provider, s.signer"
)
_VOUCHER_FROM = (
    f"SELECT {VOUCHER_COLUMNS} FROM vouchers v "  # noqa: S608 - our own constant
    "JOIN voucher_offers o ON o.offer_hash = v.offer_hash "
    "JOIN voucher_sub_accounts s ON s.number = v.sub_account "
)
FIND_VOUCHER = _VOUCHER_FROM + "WHERE v.request_id = ?"
FIND_VOUCHER_BY_HASH = _VOUCHER_FROM + "WHERE v.request_hash = ?"
LIST_OPEN = _VOUCHER_FROM + "WHERE v.state = 'issued' ORDER BY v.issued_at, v.request_id LIMIT ?"
FIND_STATE = "SELECT request_id, state, maximum_fee, sub_account FROM vouchers WHERE request_id = ?"
UPDATE_STATE = "UPDATE vouchers SET state = ?, reason = ? WHERE request_id = ?"
UPDATE_RECEIPTED = (
    "UPDATE vouchers SET state = 'receipted', reason = ?, receipt_sequence = ? "
    "WHERE request_hash = ?"
)
UPDATE_RESPONSE = (
    "UPDATE vouchers SET response_hash = ?, response_bytes = ?, is_complete = ? "
    "WHERE request_id = ?"
)

INSERT_RECEIPT = (
    "INSERT INTO voucher_receipts (sub_account, sequence, request_id, request_hash, receipt, fee, "
    "cumulative_fee, reserved, verification, reason, is_acknowledged, received_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
FIND_RECEIPT_AT = (
    "SELECT receipt, verification, request_hash, fee, cumulative_fee, reserved "
    "FROM voucher_receipts WHERE sub_account = ? AND sequence = ?"
)
UPDATE_VERIFICATION = (
    "UPDATE voucher_receipts SET verification = ?, reason = ? "
    "WHERE sub_account = ? AND sequence = ?"
)
UPDATE_ACKNOWLEDGED = (
    "UPDATE voucher_receipts SET is_acknowledged = ? WHERE sub_account = ? AND sequence = ?"
)
INSERT_CONFLICT = (
    "INSERT INTO voucher_conflicts (sub_account, sequence, receipt, reason, received_at) "
    "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
COUNT_CONFLICTS = "SELECT COUNT(*) FROM voucher_conflicts WHERE sub_account = ?"
LIST_CONFLICTS = "SELECT receipt, reason FROM voucher_conflicts ORDER BY received_at LIMIT ?"
_RECEIPT_COLUMNS = (
    "r.request_id, r.receipt, r.verification, r.reason, r.is_acknowledged, r.received_at"
)
FIND_RECEIPT = (
    f"SELECT {_RECEIPT_COLUMNS} FROM vouchers v JOIN voucher_receipts r "  # noqa: S608 - the same
    "ON r.sub_account = v.sub_account AND r.sequence = v.receipt_sequence WHERE v.request_id = ?"
)
LIST_RECEIPTS = (
    f"SELECT {_RECEIPT_COLUMNS} FROM voucher_receipts r "  # noqa: S608 - our own constant
    "WHERE received_at <= ? ORDER BY received_at DESC, sub_account, sequence DESC LIMIT ? OFFSET ?"
)
