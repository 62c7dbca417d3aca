"""Which recorded receipts are drawn for an audit, by record files and the chain's blocks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hanse.chain import Deployment, Rpc
from hanse.chain.records import Records
from hanse.protocol.commitments.lottery import PPM, Exposure, get_deciding_block
from hanse.protocol.errors import RequestError
from hanse.sdk.record_file import VerifiedRecord, read_document, verify_record_document
from hanse.settlement.records.chain_check import ChainRecords, verify_on_chain
from hanse.settlement.records.sources import get_receipt_digest
from hanse.verification.audits.schedule import Candidate, Scheduled, make_schedule

RECORDS_MAX = 10_000
"""Record files of one draw."""

DETECTION_PPM = 990_000
"""Probability that one audit finds a cheat; the bar of the product, see docs/measurements.md."""


async def draw_records(
    rpc_url: str, deployment: Deployment, paths: Iterable[Path], stake: int, window_requests: int
) -> list[tuple[VerifiedRecord, Scheduled]]:
    """Check record files against the chain and draw them.

    The gain of a cheat is taken to be the whole fee, which is the most that it can be.

    Args:
        rpc_url: of the chain's node.
        deployment: which contracts.
        paths: record files, or folders of them.
        stake: of the provider, in base units.
        window_requests: that it finishes before a first finding takes effect.

    Raises:
        VerificationError: a file, or what it says of the chain, does not hold.
        TransientError: the node does not answer.
    """
    records = [verify_record_document(read_document(path)) for path in _list_files(paths)]
    if not records:
        raise RequestError("not_found", "no record files there; hanse receipts prove writes them")
    async with Rpc.connect(rpc_url) as rpc:
        view = ChainRecords(rpc, Records(rpc, deployment.records), deployment.confirmations)
        blocks = [await find_block(view, record) for record in records]
        confirmed = await view.fetch_block()
        numbers = sorted({get_deciding_block(block) for block in blocks})
        headers = await rpc.fetch_headers_at([one for one in numbers if one <= confirmed])
    hashes = {header.number: header.hash for header in headers}
    candidates = [
        _to_candidate(record, block, stake, window_requests)
        for record, block in zip(records, blocks, strict=True)
    ]
    return list(zip(records, make_schedule(candidates, hashes), strict=True))


async def find_block(view: ChainRecords, record: VerifiedRecord) -> int:
    """The block of a record's commit, from the chain: a recorder's word could choose the draw."""
    await verify_on_chain(view, record.proof)
    return record.proof.block_number


def drawn_to_document(record: VerifiedRecord, one: Scheduled) -> dict[str, Any]:
    """One draw, JSON-ready."""
    return {
        "request_id": record.receipt.voucher.request.request_id,
        "receipt_digest": one.candidate.receipt_hash,
        "provider": one.candidate.provider,
        "committed_block": one.candidate.committed_block,
        "deciding_block": one.deciding_block,
        "rate": one.rate_ppm / PPM,
        "deterred": one.is_deterred,
        "draw": one.draw.value,
    }


def _to_candidate(
    record: VerifiedRecord, block: int, stake: int, window_requests: int
) -> Candidate:
    receipt = record.receipt.receipt.receipt
    exposure = Exposure(stake, receipt.fee, DETECTION_PPM, window_requests, receipt.sequence)
    digest = get_receipt_digest(record.receipt.receipt, record.receipt.domain)
    return Candidate(digest, receipt.provider, block, exposure)


def _list_files(paths: Iterable[Path]) -> list[Path]:
    found = [
        one for path in paths for one in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]
    if len(found) > RECORDS_MAX:
        raise RequestError("usage", f"{len(found)} files, at most {RECORDS_MAX} in one draw")
    return found
