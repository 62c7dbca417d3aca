"""One purchase of this home, for `hanse audit run`: its trace and books, and broken promises."""

from pathlib import Path
from typing import NoReturn

from hanse.auditor.files import breach_to_document
from hanse.auditor.openings import ask_opening
from hanse.auditor.purchases import Purchase, find_uncommitted, make_purchase
from hanse.cli.auditing.showing import breach_to_rows
from hanse.cli.network import load_network
from hanse.cli.session import Session
from hanse.cli.tracing.reading import read_trace, write_new
from hanse.cli.tracing.side import open_trace_side
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.signatures import DigestSigner
from hanse.sdk.receipt_file import verify_receipt_document
from hanse.sdk.settings import reaches_private
from hanse.settlement.traces.checking import check_trace
from hanse.verification.evidence.breaches import verify_breach
from hanse.verification.evidence.files import get_evidence_hash


async def look_for_uncommitted(
    session: Session, name: str, key: str, signer: DigestSigner
) -> bytes | None:
    """The file of a bill without the promised commitment, by the books of `key`, if it is one."""
    async with open_trace_side(session, key, None) as side:
        assert side.vouchers is not None
        return await find_uncommitted(side.vouchers, name, side.domain, signer)


def raise_broken(session: Session, data: bytes, target: Path | None) -> NoReturn:
    """Write and show a broken promise; ends as every cheat that was found does."""
    found, digest = verify_breach(data, verify_receipt_document), get_evidence_hash(data)
    request_id = found.receipt.voucher.request.request_id
    target = target or Path(f"evidence-{request_id[2:14]}.json")
    write_new(target, data)
    document = breach_to_document(found, digest) | {"evidence": str(target)}
    rows = [*breach_to_rows(found, digest), ("file", str(target))]
    session.output.show(document, lambda: session.output.fields(rows))
    raise VerificationError(
        "audit_failed", f"{found.reason}; signed by {found.receipt.offer.provider}, see {target}"
    )


async def load_purchase(
    session: Session,
    name: str,
    key: str,
    *,
    signer: DigestSigner,
    opening: bytes | None,
    use_keyring: bool,
) -> Purchase:
    """A request's trace, book entry and opening.

    Args:
        session: whose home.
        name: request id or trace hash.
        key: the user.
        signer: of the sub-account, to ask the broker with.
        opening: where it came another way; the broker is not asked then.
        use_keyring: for the password of the encryption key.

    Raises:
        HanseError: no such trace or receipt, or they do not fit together.
    """
    options = {"file": None, "key": key, "provider": None, "keyring": use_keyring}
    trace, _, (domain, receipt_key, held, _) = await read_trace(session, name, options)
    check_trace(trace, domain, receipt_key, held)
    request_id = trace.request.request_id
    async with open_trace_side(session, key, None) as side:
        assert side.vouchers is not None
        voucher = await side.vouchers.find_voucher(request_id)
        receipt = await side.vouchers.find_receipt(request_id)
    if voucher is None or receipt is None:
        raise RequestError(
            "not_found", f"this home's books hold no receipt of request {request_id}"
        )
    if opening is None:
        network = load_network(session.home)
        private = reaches_private(network.private_endpoints, network.deployment)
        opening = await ask_opening(domain, voucher, signer, reaches_private=private)
    return make_purchase(trace, voucher, receipt, opening, domain)
