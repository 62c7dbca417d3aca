"""Where a home keeps what its own audits work with.

HOME/audits/kept/        answers that wait for their draw, encrypted, mode 0600
HOME/audits/evidence/    signed evidence of each audit, one file a request
HOME/audits/draw.key     secret of the buyer's own draw (mode 0600)
"""

from pathlib import Path

import click

from hanse.cli.session import Session

audit_option = click.option(
    "--audit/--no-audit",
    default=False,
    help="Keep answers of offers that commit, encrypted in HOME/audits, until hanse audit watch "
    "has drawn; and bar whom its audits catch.",
)


def get_kept_folder(session: Session) -> Path:
    """Where a gateway of this home keeps answers, and its auditor finds them."""
    return session.home / "audits" / "kept"


def get_evidence_folder(session: Session) -> Path:
    """Where the auditor of this home writes, and its gateway reads; made if it is not there."""
    folder = session.home / "audits" / "evidence"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
