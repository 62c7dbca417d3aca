"""Makes record files, and checks them against the chain."""

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hanse.chain import Rpc
from hanse.chain.records import Records
from hanse.cli.network import load_network
from hanse.cli.recording.looks import open_submissions
from hanse.cli.recording.patience import Patience
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError, TransientError, VerificationError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.records import RecordProof, verify_record
from hanse.protocol.signatures import ZERO_HASH
from hanse.sdk.record_file import VerifiedRecord, export_record
from hanse.settlement.records.chain_check import ChainRecords, verify_on_chain
from hanse.settlement.records.recorder_client import HttpRecorderClient
from hanse.settlement.records.sources import get_receipt_digest, to_record_entry

if TYPE_CHECKING:
    from hanse.protocol.eip712 import Domain

CONFIRMATIONS_DEFAULT = 2
"""Blocks on a commit where this home has no deployment that says how many."""

ASK_S = 0.5
"""Between looks while a proof is waited for."""


async def prove(
    session: Session,
    key: str,
    signed: SignedReceipt,
    document: dict[str, Any],
    domain: "Domain",
    wait_s: float,
    patience: Patience | None = None,
) -> dict[str, Any]:
    """The record file of one receipt: the proof from our own books, else from a recorder.

    Args:
        session: its home's network names the recorders.
        key: whose books.
        signed: the receipt.
        document: the receipt's file, which the record's is made around.
        domain: of all signatures.
        wait_s: how long it may take until the receipt is recorded.
        patience: of whoever asks for many; without it every recorder is asked.

    Raises:
        RequestError: `not_found` if it is not recorded, and why.
        VerificationError: a recorder served a proof that is none.
    """
    ends = time.monotonic() + wait_s
    while True:
        found = await _find_stored(session, key, signed)
        proof, why = (
            found if found[0] else await _fetch(session, signed, domain, found[1], patience)
        )
        if proof is not None:
            verify_record(proof, get_receipt_digest(signed, domain))
            return export_record(document, proof, load_network(session.home).deployment.records)
        if time.monotonic() >= ends:
            raise RequestError(
                "not_found",
                f"this receipt is not recorded: {why}; ask again with --wait 60, or see why with: "
                "hanse recorder unmatched",
            )
        await asyncio.sleep(ASK_S)


async def verify_with_chain(session: Session, found: VerifiedRecord, rpc_url: str | None) -> str:
    """Check a record's commit on the chain; returns what was compared, for people.

    Args:
        session: its home's network names node and contracts, if it has one.
        found: the record, checked offline.
        rpc_url: another node than the home's.

    Raises:
        RequestError: `configuration_invalid` if the home is of another market than the file and
            no node is named.
        VerificationError: the chain does not have it.
    """
    domain, records, confirmations = found.receipt.domain, found.records, CONFIRMATIONS_DEFAULT
    try:
        network = load_network(session.home)
    except RequestError:
        if rpc_url is None:
            raise
    else:
        deployment = network.deployment
        same = (deployment.chain_id, deployment.escrow) == (domain.chain_id, domain.escrow)
        if same and deployment.records != records:
            raise VerificationError(
                "proof_invalid",
                f"the file names Records {records}, this market's is {deployment.records}",
            )
        if not same and rpc_url is None:
            raise RequestError(
                "configuration_invalid",
                f"the file is of chain {domain.chain_id}, Escrow {domain.escrow}; this home's "
                f"market is chain {deployment.chain_id}, Escrow {deployment.escrow}: name a node "
                "of the file's chain with --rpc",
            )
        rpc_url, confirmations = rpc_url or network.rpc_url, deployment.confirmations
    assert rpc_url is not None  # else it was refused above
    async with Rpc.connect(rpc_url) as rpc:
        chain_id = await rpc.fetch_chain_id()
        if chain_id != domain.chain_id:
            raise VerificationError(
                "proof_invalid", f"the node is of chain {chain_id}, the file of {domain.chain_id}"
            )
        await verify_on_chain(ChainRecords(rpc, Records(rpc, records), confirmations), found.proof)
    return f"transaction {found.proof.transaction_hash}, Records {records}"


async def _find_stored(
    session: Session, key: str, signed: SignedReceipt
) -> tuple[RecordProof | None, str]:
    receipt = signed.receipt
    async with open_submissions(session, key) as book:
        known = await book.find_entry(
            (receipt.user, receipt.provider, receipt.signer, receipt.sequence)
        )
    if known is None:
        return None, "it was not submitted yet"
    reason = f", {known.reason}" if known.reason else ""
    return known.proof, f"it is {known.state} at {known.recorder or 'no recorder'}{reason}"


async def _fetch(
    session: Session,
    signed: SignedReceipt,
    domain: "Domain",
    why: str,
    patience: Patience | None,
) -> tuple[RecordProof | None, str]:
    entry = to_record_entry(signed, domain, ZERO_HASH)
    client = HttpRecorderClient(patience.answer_s) if patience else HttpRecorderClient()
    try:
        for url in load_network(session.home).recorders:
            if patience and not patience.may_ask(url):
                why = f"{why}; recorder {url}: left alone for now, it was slow"
                continue
            try:
                with patience.asking(url) if patience else nullcontext():
                    (proof,) = await client.fetch_proofs(url, [entry])
            except (TransientError, RequestError) as error:
                why = f"{why}; {error.message}"
                continue
            if proof is not None:
                return proof, ""
    finally:
        await client.close()
    return None, why
