"""Traces: the bytes of one request and its answer, kept encrypted, for those two who made it.

Optional and off by default. Each side that wants traces keeps its own: the body as it was sent and
the answer as it came, encrypted under a data key of this trace alone, stored by content hash in a
folder or an S3-compatible store. The data key is sealed to the user and to the provider; the
sealed keys stay in that side's database, apart from the bytes, so that deleting them is enough.

    document         what a trace holds, padded, under its data key
    sealing          data keys sealed to X25519 keys (HPKE)
    encryption_key   X25519 keys as encrypted files
    object_store     bytes by content hash: folder, S3, memory
    notes, tables    which trace belongs to which receipt, and its sealed keys
    capture          the bytes of one request while it is answered
    writer           takes traces off the path of requests, stores, sweeps
    checking         is a trace what was signed for?
    bundle           a trace with its sealed keys as one file

Source: docs/decisions/0020-traces.md, docs/how-to/keep-traces.md.
"""
