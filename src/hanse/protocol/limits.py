"""Every limit of the protocol, named, in one place, with its reason.

A limit that only one process cares about (a queue, a pool) is a setting of that process; what both
sides must agree on stands here.
"""

AMOUNT_MAX = 2**96 - 1
"""Base units. Balance and claimed share one 256-bit storage word with the sequence (96 + 96 +
64).
"""

SEQUENCE_MAX = 2**64 - 1
"""Finished requests of one sub-account; the last 64 bits of the same word."""

TOKENS_MAX = 2**40
"""Tokens of one request. Far above any context, and times the highest price still far below
2**256.
"""

PRICE_PER_MTOK_MAX = 2**80
"""Base units per million tokens. With TOKENS_MAX a fee stays below 2**101 before it is held to
AMOUNT_MAX.
"""

ASSET_DECIMALS_MAX = 36
"""Decimal places of an asset; more than any in use, and small enough to format."""

CLAIMS_PER_SETTLEMENT_MAX = 200
"""Claims of one settlement batch: about 2.4 M gas, well inside every chain's block."""

SUB_ACCOUNTS_PER_OPEN_MAX = 20
"""Sub-accounts opened in one transaction: a gateway's first providers, at about 30,000 gas each."""

LOCK_TIME_S_MIN = 3_600
"""A refund waits at least this long, so that a provider's settlement can come first."""

LOCK_TIME_S_MAX = 7 * 86_400
"""A refund waits at most this long: the promise that unused money comes back."""

LOCK_TIME_S_DEFAULT = 86_400
"""The lock time of a deployment that names none."""

REQUEST_BODY_BYTES_MAX = 4 * 1024 * 1024
"""One request's body: 1 M tokens of text at about 4 bytes each. Larger is refused with 413."""

MESSAGES_MAX = 4_096
"""Messages of one chat; a conversation longer than that has left every context."""

CHOICES_MAX = 128
"""Answers to one request (`n`), as in OpenAI's API; brokers and engines give fewer."""

HEADER_BYTES_MAX = 4_096
"""The voucher header after base64; a full one takes about 1,300 bytes, and servers refuse 8 kB
lines.
"""

RESPONSE_BYTES_MAX = 64 * 1024 * 1024
"""One response as the user's side will read it; past that it hangs up and owes what was
receipted.
"""

FRAME_BYTES_MAX = 1024 * 1024
"""One SSE frame; an engine or broker that sends more is broken or hostile."""

DEADLINE_S_MAX = 3_600
"""A voucher's deadline lies at most this far ahead: reservations must not live longer."""

CLOCK_SKEW_S_MAX = 60
"""How far two honest clocks may differ when a deadline is judged."""

OFFER_VALID_S_MAX = 90 * 86_400
"""An offer binds its provider at most this long."""

ENDPOINTS_PER_OFFER_MAX = 8
"""Addresses of one broker in an offer."""

ENDPOINT_CHARS_MAX = 256
"""One endpoint URL."""

NAME_CHARS_MAX = 128
"""Model, engine and quantisation names in an offer."""

REGION_CHARS_MAX = 32
"""A region's name in an offer, such as `eu` or `ap-southeast`."""

HEARTBEAT_INTERVAL_S = 5.0
"""Between two heartbeats: two missed are ten seconds, about what a person waits for an answer."""

HEARTBEATS_MISSED_MAX = 2
"""A provider without so many heartbeats is out; one may be lost on the way."""

HEARTBEAT_COUNT_MAX = 2**20
"""Slots or requests that wait, of one service; far above any broker."""

RECEIPTS_PER_PAGE_MAX = 500
"""Receipts in one answer of the resume handshake, about 700 bytes each."""

ANSWER_RETAINED_BYTES_MAX = 1024 * 1024
"""Of an answer kept sealed until acknowledged, at most these last bytes."""

ANSWER_RETAINED_S = 3_600
"""How long an unacknowledged answer is kept; as long as the longest deadline."""

IN_FLIGHT_PER_SUB_ACCOUNT_MAX = 1_024
"""Requests at work at once for one sub-account; bounds the books, not the engine."""

QUERY_VALID_S_MAX = 120
"""A signed query for receipts and sub-account state is good for this long at most."""

RECORD_ENTRIES_PER_SUBMISSION_MAX = 500
"""Entries handed to a recorder at once, about 420 bytes each; as many as receipts in a page."""

RECORD_BODY_BYTES_MAX = 512 * 1024
"""One submission or question to a recorder: 500 entries are 210 kB, with room."""

RECORD_ANSWER_BYTES_MAX = 2 * 1024 * 1024
"""One answer of a recorder: 500 inclusion proofs of 2.2 kB at most, with room."""

RECORD_SEQUENCE_MAX = 2**63 - 1
"""Sequences that a recorder takes: what a database's integer holds."""

RECORD_FEE_MAX = 2**80 - 1
"""Fee of one entry; 2**16 of them stay below AMOUNT_MAX, so a root's fee total is an amount."""

SUBMISSION_VALID_S_MAX = 120
"""A submission's signature is good for this long at most; entries are sent again under a new one.
"""

LEAVES_PER_COMMIT_MAX = 2**16
"""Leaves of one root: 4 MB of tree, 0.3 s of hashing, and 546 receipts a second at a commit every
two minutes. What is above waits for the next.
"""

COMMITS_PER_PAGE_MAX = 500
"""Commits in one answer of a recorder, about 400 bytes each."""
