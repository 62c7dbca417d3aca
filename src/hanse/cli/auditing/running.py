"""One stored purchase audited: from this home's books and traces to a file of evidence.

The user's trace has body and answer, its book has voucher, offer and receipt, the broker has the
opening. Whoever keeps no traces has nothing to audit: hashes alone cannot be run through a model.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from hanse.cli.auditing.auditors import OpenedModel
from hanse.cli.auditing.files import breach_to_document, breach_to_rows
from hanse.cli.auditing.openings import fetch_opening
from hanse.cli.network import load_network
from hanse.cli.session import Session
from hanse.cli.tracing.reading import read_trace, write_new
from hanse.cli.tracing.side import open_trace_side
from hanse.protocol.commitments.tree import Entry
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.signatures import DigestSigner
from hanse.sdk.receipt_file import export_receipt, verify_receipt_document
from hanse.sdk.settings import reaches_private
from hanse.sdk.transport.http import HttpTransport
from hanse.settlement.books.voucher_records import StoredVoucher
from hanse.settlement.traces.checking import check_trace
from hanse.verification.audits.answers import Audited, Bought, audit_answer, open_commitment
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.measuring import Measured
from hanse.verification.evidence.breaches import make_breach, verify_breach
from hanse.verification.evidence.files import encode_evidence, get_evidence_hash
from hanse.verification.evidence.statement import Content, Statement, sign_statement


@dataclass(frozen=True)
class Purchase:
    """What is to be audited, checked against what was signed.

    Attributes:
        bought: the answer.
        opening: of its commitment.
        document: its receipt file.
        domain: of all signatures.
    """

    bought: Bought
    opening: bytes
    document: dict[str, Any]
    domain: Domain


async def find_uncommitted(
    session: Session, name: str, key: str, signer: DigestSigner
) -> bytes | None:
    """The file of a bill without the promised commitment; None if this request's has one.

    Needs neither trace nor model nor broker: the book has all that was signed.

    Args:
        session: whose home.
        name: request id.
        key: the user.
        signer: who hands it out.
    """
    deployment = load_network(session.home).deployment
    async with open_trace_side(session, key, None) as side:
        assert side.vouchers is not None
        voucher = await side.vouchers.find_voucher(name)
        receipt = await side.vouchers.find_receipt(name)
    if voucher is None or receipt is None:
        return None
    domain = Domain(deployment.chain_id, deployment.escrow)
    return show_breach(export_receipt(domain, voucher, receipt), signer)


def find_overbilled(purchase: Purchase, signer: DigestSigner) -> bytes | None:
    """The file of a bill above its commitment; None if there is no such.

    Raises:
        VerificationError: the opening is another receipt's.
        RequestError: there is no commitment.
    """
    entries = open_commitment(purchase.bought, purchase.opening)
    return show_breach(purchase.document, signer, entries)


def show_breach(
    document: dict[str, Any], signer: DigestSigner, entries: Sequence[Entry] = ()
) -> bytes | None:
    """The file of a receipt that breaks its offer's promise, handed out by `signer`."""
    receipt = verify_receipt_document(msgspec.json.encode(document))
    return make_breach(document, receipt, signer, int(time.time()), entries)


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
    bought = Bought(
        voucher.offer.offer, trace.request, receipt.signed, trace.path, trace.body, trace.response
    )
    if opening is None:
        opening = await ask_opening(session, domain, voucher, signer)
    return Purchase(bought, opening, export_receipt(domain, voucher, receipt), domain)


def audit_purchase(
    purchase: Purchase,
    model: OpenedModel,
    calibration: Calibration,
    signer: DigestSigner,
    cache_dir: Path,
    *,
    withhold: bool,
) -> tuple[Audited, bytes]:
    """Run and judge it; returns what was found and the signed file.

    Raises:
        VerificationError: the opening is another receipt's.
        RequestError: there is no commitment, or the model is not the one to audit with.
    """
    bought = purchase.bought
    entries = open_commitment(bought, purchase.opening)
    described = model.describe(bought.offer.manifest_root, cache_dir)
    if described.provider and described.provider != bought.offer.provider:
        raise RequestError(
            "unprocessable",
            f"this copy is {described.provider}'s, the answer was served by "
            f"{bought.offer.provider}: audit it with that provider's copy",
        )
    if described.manifest_root != bought.offer.manifest_root:
        raise RequestError(
            "unprocessable",
            f"this copy is of {described.manifest_root}, offered was {bought.offer.manifest_root}",
        )
    found = audit_answer(bought, entries, model.auditor, calibration)
    content = Content(
        bought.path, bought.body, bought.response, purchase.opening, found.alignment.prompt_tokens
    )
    statement = Statement(
        signer.address,
        int(time.time()),
        f"hanse {version('hanse')}",
        described,
        content.get_hash(),
        found.alignment.count,
        found.alignment.reasons,
        found.measured or Measured(model.auditor.prefill.runtime, (), (), ()),
        calibration,
        found.judgement,
    )
    signature = sign_statement(statement, bought.receipt, purchase.domain, signer)
    data = encode_evidence(purchase.document, statement, signature, None if withhold else content)
    return found, data


async def ask_opening(
    session: Session, domain: Domain, voucher: StoredVoucher, signer: DigestSigner
) -> bytes:
    """The opening of a request's commitment, from its broker.

    Raises:
        RequestError: `not_found` if it gives none.
        TransientError: it does not answer.
    """
    network = load_network(session.home)
    transport = HttpTransport(
        reaches_private=reaches_private(network.private_endpoints, network.deployment)
    )
    try:
        return await fetch_opening(transport, domain, voucher, signer)
    except VerificationError as error:
        raise RequestError("not_found", f"the broker gave no opening: {error.message}") from None
    finally:
        await transport.close()
