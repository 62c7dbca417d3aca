"""Evidence: the signed result of an audit, as a file that a stranger can check and rerun.

    statement.py   what an auditor states, and the digest that it signs
    files.py       writing a file, and checking all of it but the rerun
    replaying.py   the rerun
    breaches.py    a bill that breaks its offer's promise: a file that takes no model

The file's form: `docs/verification/evidence-file.md`.
"""
