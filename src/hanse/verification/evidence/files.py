"""Evidence as a file: all that a stranger needs to check an audit, and to rerun it.

    data = encode_evidence(receipt_document, statement, signature, content)
    evidence = verify_evidence(data, verify_receipt_document)
    get_evidence_hash(data)             what a dispute posts

Everything but the rerun is checked from the file alone: who bought what from whom at which price
(the receipt file inside), that body, answer and opening are those that were signed for, that the
calibration carries its thresholds, and that the verdict follows from the auditor's numbers. What
stays the auditor's word are the numbers themselves, the prompt's tokens and the fit of the tokens
to the text: `replaying.py` computes them again.

A file without content proves less: that this auditor signed this verdict on this receipt.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from hanse.protocol.commitments.tree import POSITIONS_MAX, Entry
from hanse.protocol.eip712 import Domain
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.protocol.messages import Offer, SignedReceipt, SignedVoucher
from hanse.protocol.signatures import (
    Address,
    Hash32,
    Signature,
    keccak,
    parse_address,
    parse_hash32,
    to_hex,
)
from hanse.protocol.wire.files import FileForm
from hanse.verification.audits.alignment import (
    Alignment,
    count_told,
    get_plain_misfits,
    may_have_tail,
)
from hanse.verification.audits.answers import Bought, judge_answer, open_commitment
from hanse.verification.audits.calibration import verify_calibration
from hanse.verification.audits.measuring import POSITIONS_AUDITED_MAX
from hanse.verification.evidence.statement import Content, Statement

FORMAT = "hanse-evidence-1"

RESPONSE_BYTES_MAX = 12 * 1024 * 1024
"""Of an answer in a file; a longer one leaves no trace to audit from."""

FILE_BYTES_MAX = 32 * 1024 * 1024
"""Body and answer at their limits in base64, opening and numbers of a thousand positions."""


PROMPT_TOKENS_MAX = POSITIONS_MAX
"""The longest contexts in use. A rerun asks its model for as many places as a file says, before it
has read the prompt by itself."""


class VerifiedReceipt(Protocol):
    """What a receipt file proves (`hanse.sdk.receipt_file`)."""

    @property
    def receipt(self) -> SignedReceipt:
        """Of the request."""

    @property
    def voucher(self) -> SignedVoucher:
        """That bought it."""

    @property
    def offer(self) -> Offer:
        """That the request names."""

    @property
    def domain(self) -> Domain:
        """Of all signatures."""

    @property
    def receipt_key(self) -> Address:
        """That signed offer and receipt."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    receipt: dict[str, Any]
    statement: Statement
    signature: str
    content: Content | None


FORM = FileForm(FORMAT, _File, FILE_BYTES_MAX, "evidence_invalid", "this evidence does not hold")


class Evidence(msgspec.Struct, frozen=True):
    """What a file proves.

    Attributes:
        receipt: who bought what.
        statement: of the auditor, signed by it.
        content: what was bought; None if it was withheld.
        bought: the same, held to the signed hashes; None with it.
    """

    receipt: VerifiedReceipt
    statement: Statement
    content: Content | None
    bought: Bought | None


def encode_evidence(
    receipt_document: dict[str, Any],
    statement: Statement,
    signature: Signature,
    content: Content | None,
) -> bytes:
    """The file; without content if it is to be handed out apart."""
    file = _File(FORMAT, receipt_document, statement, signature, content)
    return msgspec.json.encode(file) + b"\n"


def get_evidence_hash(data: bytes) -> Hash32:
    """The hash of a file's bytes: what names it in a dispute."""
    return to_hex(keccak(data))


def verify_evidence(data: bytes, verify_receipt: Callable[[bytes], VerifiedReceipt]) -> Evidence:
    """Check a file; pure.

    1. The receipt file inside is whole: offer, voucher and receipt are signed and fit together.
    2. The auditor signed the statement about this receipt.
    3. The calibration's thresholds follow from its figures.
    4. The model that was run is the offered one, and a copy is the provider's.
    5. Body, answer and opening are those that were signed for, and the stated misfits are those
       that they show.
    6. The verdict follows from the numbers, the answer and the calibration.

    The caller still owes: that the receipt key was the provider's, from the Registry; that the
    auditor is one; the rerun (`replaying.py`).

    Args:
        data: the file's bytes.
        verify_receipt: checks the receipt file inside.

    Raises:
        VerificationError: naming what does not fit.
    """
    file = _decode(data)
    receipt = verify_receipt(msgspec.json.encode(file.receipt))
    statement = file.statement
    with FORM.reading():
        digest = receipt.domain.digest(statement.struct_hash(receipt.receipt))
        FORM.verify_signature(digest, file.signature, statement.auditor, "the statement")
    verify_calibration(statement.calibration)
    _verify_model(statement, receipt)
    if file.content is None:
        return Evidence(receipt, statement, None, None)
    bought = _verify_content(file.content, statement, receipt)
    return Evidence(receipt, statement, file.content, bought)


def _decode(data: bytes) -> _File:
    file = FORM.decode(data)
    with FORM.reading():
        parse_address(file.statement.auditor, "auditor")
        parse_hash32(file.statement.content_hash, "content_hash")
        parse_hash32(file.statement.model.manifest_root, "manifest_root")
    return file


def _verify_model(statement: Statement, receipt: VerifiedReceipt) -> None:
    model, offer = statement.model, receipt.offer
    if model.manifest_root != offer.manifest_root:
        raise FORM.refuse(
            f"the auditor ran {model.manifest_root}, offered was {offer.manifest_root}"
        )
    if model.provider and model.provider != offer.provider:
        raise FORM.refuse(
            f"the copy is bound to {model.provider}, the provider is {offer.provider}"
        )
    if statement.measured.fingerprints and not model.provider:
        raise FORM.refuse("it holds fingerprints of a model that is no copy")


def _verify_content(content: Content, statement: Statement, receipt: VerifiedReceipt) -> Bought:
    if len(content.body) > REQUEST_BODY_BYTES_MAX or len(content.response) > RESPONSE_BYTES_MAX:
        raise FORM.refuse("body or answer is larger than any that is served")
    if len(content.prompt_tokens) > PROMPT_TOKENS_MAX:
        raise FORM.refuse(
            f"a prompt of {len(content.prompt_tokens)} tokens, at most {PROMPT_TOKENS_MAX}"
        )
    if content.get_hash() != statement.content_hash:
        raise FORM.refuse(
            f"the content hashes to {content.get_hash()}, signed was {statement.content_hash}"
        )
    bought = Bought(
        receipt.offer,
        receipt.voucher.request,
        receipt.receipt,
        content.path,
        content.body,
        content.response,
    )
    with FORM.reading():  # numbers may be none of an audit's
        entries = open_commitment(bought, content.opening)
        _verify_fit(content, statement, bought, entries)
        _verify_count(content, statement)
        found = Alignment(content.prompt_tokens, statement.known_tokens, statement.misfits)
        judgement = judge_answer(bought, entries, found, statement.measured, statement.calibration)
    if judgement != statement.judgement:
        raise FORM.refuse(
            f"the numbers give {judgement.verdict} ({', '.join(judgement.reasons) or 'no reason'}),"
            f" the auditor says {statement.judgement.verdict}"
        )
    return bought


def _verify_fit(
    content: Content, statement: Statement, bought: Bought, entries: tuple[Entry, ...]
) -> None:
    """How far the tokens fit is the auditor's word only where it takes a vocabulary to see it.

    An auditor that kept silent of a misfit could make an honest provider look like a cheat, since
    numbers of other tokens than the served ones differ.
    """
    known, said = statement.known_tokens, statement.misfits
    told = count_told(entries) if content.prompt_tokens else 0
    is_cut = "text_differs" in said and 0 <= known < told
    if known != told and not is_cut:
        raise FORM.refuse(f"{known} known tokens are stated, {told} of {len(entries)} are told")
    if not content.prompt_tokens:
        expected = ["prompt_unreadable"]
    else:
        usage = bought.receipt.receipt.usage
        expected = get_plain_misfits(
            content.prompt_tokens, content.path, content.body, bought.response, entries, usage
        )
        if "text_differs" in said and "answer_parsed" not in expected:
            expected.append("text_differs")
        if (
            "tail_unexplained" in said
            and "answer_parsed" not in expected
            and may_have_tail(entries)
        ):
            expected.append("tail_unexplained")
        if known == 0:
            expected.append("nothing_told")
    if list(said) != expected:
        raise FORM.refuse(
            f"the file shows these misfits: {', '.join(expected) or 'none'}; "
            f"the auditor states {', '.join(said)[:200] or 'none'}"
        )


def _verify_count(content: Content, statement: Statement) -> None:
    """An auditor measures all that an audit covers, or it could leave out what it does not like."""
    measured = len(statement.measured.misses)
    most = min(POSITIONS_AUDITED_MAX, statement.calibration.conditions.answer_tokens)
    expected = min(statement.known_tokens, most) if content.prompt_tokens else 0
    if measured != expected:
        raise FORM.refuse(f"{measured} positions measured where an audit takes {expected}")
