"""Bringing a challenge from the command line: a file read, and the case shown."""

from pathlib import Path

from hanse.auditor.panels.accusing import bring, find_receipt
from hanse.cli.panels.judging import show_after
from hanse.cli.panels.opening import open_court
from hanse.cli.panels.showing import VERDICTS
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.sdk.receipt_file import verify_receipt_file
from hanse.store.files import read_file
from hanse.verification.evidence.files import FILE_BYTES_MAX

URI_BYTES_MAX = 256
"""The contract's."""


async def accuse(
    session: Session,
    file: Path,
    receipt_file: Path | None,
    uri: str,
    known_answer: str | None,
    key: str,
    keyring: bool,
) -> None:
    """Check the receipt, seal the answer, keep it, and send the challenge."""
    content = read_evidence(file)
    receipt = verify_receipt_file(receipt_file) if receipt_file else find_receipt(content)
    if len(uri.encode()) > URI_BYTES_MAX:
        raise RequestError("usage", f"the URI has {len(uri.encode())} bytes, at most 256")
    answer = VERDICTS[known_answer] if known_answer else Verdict.NONE
    async with open_court(session, key, can_send=True, use_keyring=keyring) as court:
        with session.output.wait("challenging, until the transaction is confirmed ..."):
            name, entry = await bring(session.home, court, content, receipt, uri, answer)
        await show_after(session, court, entry, name)


def read_evidence(file: Path) -> bytes:
    """An evidence file's bytes, within the limit."""
    content = read_file(file, FILE_BYTES_MAX)
    if len(content) > FILE_BYTES_MAX:
        raise RequestError("usage", f"{file} has more than {FILE_BYTES_MAX} bytes")
    return content
