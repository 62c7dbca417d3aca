"""All of an audit together: one bought answer, read, run through the model once, and judged.

    found = audit_answer(answer, entries, auditor, calibration)
    found.judgement.verdict

What was bought comes from the user's own records (receipt, request, body, answer), what was
committed from the broker's opening of the receipt's root. The provider takes no part in it.
"""

from typing import Any

import msgspec

from hanse.protocol.commitments.fingerprints import SCALE
from hanse.protocol.commitments.promises import Breach, find_breach
from hanse.protocol.commitments.seeds import get_request_seed
from hanse.protocol.commitments.tree import Entry, decode_opening
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.hashing import hash_body, hash_response
from hanse.protocol.messages import Offer, Request, SignedReceipt
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.verification.audits.alignment import Alignment, align, is_little_told
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.coverage import (
    Circumstances,
    get_chain,
    get_coverage,
    is_text_alone,
)
from hanse.verification.audits.judging import Case, Judgement, count_fingerprints, judge
from hanse.verification.audits.measuring import POSITIONS_AUDITED_MAX, Measured, Task, measure
from hanse.verification.audits.prefill import Prefill, Reader
from hanse.verification.audits.served_text import read_served
from hanse.verification.audits.statistics import count_choices


class Bought(msgspec.Struct, frozen=True):
    """One answer as its buyer holds it.

    Attributes:
        offer: that the request names.
        request: as it was signed.
        receipt: of it.
        path: of the operation.
        body: of the request.
        response: the answer's bytes, of a stream its data frames in order.
    """

    offer: Offer
    request: Request
    receipt: SignedReceipt
    path: str
    body: bytes
    response: bytes


class Auditor(msgspec.Struct, frozen=True):
    """What an auditor computes with.

    Attributes:
        prefill: runs the model.
        reader: reads requests and tokens as the model does.
        scale: one step of the copy's fingerprints.
    """

    prefill: Prefill
    reader: Reader
    scale: float = SCALE


class Audited(msgspec.Struct, frozen=True):
    """What came out.

    Attributes:
        alignment: of tokens with answer and prompt.
        measured: the auditor's numbers; None if nothing could be run.
        judgement: the verdict.
    """

    alignment: Alignment
    measured: Measured | None
    judgement: Judgement


def open_commitment(bought: Bought, opening: bytes) -> tuple[Entry, ...]:
    """The committed entries, after body, answer and opening were held to the signed hashes.

    Raises:
        RequestError: `unprocessable` if the receipt has no commitment.
        VerificationError: `evidence_invalid`, `response_mismatch` or `proof_invalid`.
    """
    receipt = bought.receipt.receipt
    body_hash = hash_body(bought.path, bought.body)
    request_hash = to_hex(bought.request.struct_hash())
    if (body_hash, request_hash) != (bought.request.body_hash, receipt.request_hash):
        raise VerificationError(
            "evidence_invalid",
            f"body and request hash to {body_hash} and {request_hash}, signed were "
            f"{bought.request.body_hash} and {receipt.request_hash}",
        )
    response_hash = hash_response(bought.response)
    if response_hash != receipt.response_hash:
        raise VerificationError(
            "response_mismatch",
            f"the answer's bytes hash to {response_hash}, the receipt says {receipt.response_hash}",
        )
    if receipt.commitment_root == ZERO_HASH:
        raise RequestError(
            "unprocessable",
            f"the receipt of request {bought.request.request_id} has no commitment: its offer is "
            f"of class {bought.offer.verifiability}, its fee {receipt.fee}",
        )
    return decode_opening(opening, receipt.commitment_root)


def audit_answer(
    bought: Bought, entries: tuple[Entry, ...], auditor: Auditor, calibration: Calibration
) -> Audited:
    """Run one answer through the model and judge it.

    Args:
        bought: the answer.
        entries: of `open_commitment`.
        auditor: model and reader.
        calibration: for this pair of runtimes.

    Raises:
        RequestError: `unprocessable` or `context_length_exceeded`: the model cannot run it.
    """
    usage = bought.receipt.receipt.usage
    found = align(auditor.reader, bought.path, bought.body, bought.response, entries, usage)
    if not found.prompt_tokens or not found.count:
        empty = Measured(auditor.prefill.runtime, (), (), ())
        return Audited(found, None, judge_answer(bought, entries, found, empty, calibration))
    most = min(POSITIONS_AUDITED_MAX, calibration.conditions.answer_tokens)
    task = get_task(bought, entries[: min(found.count, most)], found, auditor.scale)
    measured = measure(auditor.prefill, task)
    judgement = judge_answer(bought, entries, found, measured, calibration)
    return Audited(found, measured, judgement)


def get_task(bought: Bought, entries: tuple[Entry, ...], found: Alignment, scale: float) -> Task:
    """What the model is to run: the prompt, and these first known tokens of the answer."""
    body = read_body(bought.body)
    seed = body.get("seed")
    return Task(
        found.prompt_tokens,
        tuple(entry.token for entry in entries),
        get_chain(body),
        get_request_seed(
            seed if isinstance(seed, int) else None,
            bought.request.request_id,
            bought.receipt.receipt.provider,
        ),
        scale,
    )


def judge_answer(
    bought: Bought,
    entries: tuple[Entry, ...],
    found: Alignment,
    measured: Measured,
    calibration: Calibration,
) -> Judgement:
    """The verdict from numbers that an auditor computed; runs no model."""
    body, usage = read_body(bought.body), bought.receipt.receipt.usage
    audited = entries[: len(measured.misses)]
    circumstances = Circumstances(
        len(found.prompt_tokens),
        count_fingerprints(audited, measured),
        len(audited),
        usage.cached_tokens,
        count_choices(measured.odds),
    )
    coverage = get_coverage(bought.path, body, circumstances, calibration)
    breach = find_breach(bought.offer, bought.receipt.receipt, len(entries))
    shown = ["overbilled"] if breach is Breach.OVERBILLED else []
    served = read_served(bought.response)
    # llama.cpp's parser of thoughts keeps their first mark back, of which nothing is told then
    is_text = is_text_alone(bought.path, body) and served.is_text and not served.has_thoughts
    if is_text and is_little_told(entries):
        shown.append("little_told")
    case = Case(
        audited,
        measured,
        get_chain(body),
        coverage,
        (*found.reasons, *shown),
        bought.offer.manifest_root,
        bought.offer.engine,
    )
    return judge(case, calibration)


def read_body(body: bytes) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        RequestError: `unprocessable`; a broker would not have admitted it.
    """
    if not is_nested_too_deep(body):
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    raise RequestError("unprocessable", "the request's body is no JSON object")
