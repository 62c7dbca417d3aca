"""Answers of the toy model, bought, receipted and committed to as real ones are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from hanse.protocol.commitments.seeds import get_request_seed
from hanse.protocol.commitments.tree import Entry, encode_opening, get_commitment_root
from hanse.protocol.hashing import hash_body, hash_response
from hanse.protocol.messages import (
    FinishReason,
    Offer,
    Prices,
    Receipt,
    Request,
    SignedReceipt,
    Usage,
)
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.verification.audits.answers import Audited, Auditor, Bought, audit_answer
from hanse.verification.audits.calibration import Calibration, Conditions, make_calibration
from hanse.verification.audits.coverage import get_chain
from hanse.verification.audits.judging import get_statistics
from hanse.verification.audits.measuring import Task, measure
from tests.verification.audits.toy_model import GREEDY, PLAIN, ToyModel, ToyReader

PATH = "/v1/chat/completions"
PROVIDER = "0x" + "22" * 20
USER = "0x" + "33" * 20
MANIFEST = "0x" + "5a" * 32
SERVED_NOISE, OWN_NOISE = 0.01, 0.01

OFFER = Offer(
    PROVIDER, 1, "chat", "toy", MANIFEST, "Q8_0", "llama", 4_096, 1_024,
    Prices(1_000, 1_000, 2_000), "embedded", ("http://broker.example",), ZERO_HASH,
    2_000_000_000, 1,
)  # fmt: skip

PLAIN_FIELDS = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}


@dataclass
class Sold:
    """One sold answer and what its broker kept."""

    bought: Bought
    entries: list[Entry]
    opening: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.opening = encode_opening(self.entries)


def make_body(prompt: str = "What is it?", **fields: Any) -> bytes:
    asked = {"model": "toy", "messages": [{"role": "user", "content": prompt}]}
    return msgspec.json.encode(asked | PLAIN_FIELDS | fields)


def make_response(text: str) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, "message": {"content": text}}]})


def sell(
    model: ToyModel,
    count: int = 80,
    number: int = 1,
    *,
    body: bytes | None = None,
    entries: Sequence[Entry] | None = None,
    served_prompt: bytes | None = None,
    text: str | None = None,
    response: bytes | None = None,
    usage: Usage | None = None,
    offer: Offer = OFFER,
) -> Sold:
    """Generate, answer, commit and sign off (without a signature, which nothing here checks).

    `entries` replaces what the model would have generated, `served_prompt` is the body that it saw.
    """
    body = make_body(f"What is it? {number}") if body is None else body
    request = Request(
        to_hex(offer.struct_hash()),
        hash_body(PATH, body),
        1_000,
        "0x" + number.to_bytes(32, "big").hex(),
        1_900_000_000,
    )
    fields = msgspec.json.decode(body)
    reader = ToyReader()
    prompt = reader.get_prompt_tokens(PATH, body)
    seed = get_request_seed(fields.get("seed"), request.request_id, PROVIDER)
    if entries is None:
        seen = reader.get_prompt_tokens(PATH, served_prompt) if served_prompt else prompt
        entries = model.generate(seen, count, get_chain(fields), seed)
    told = reader.get_text([entry.token for entry in entries if entry.token < 64]).decode()
    response = make_response(told if text is None else text) if response is None else response
    receipt = Receipt(
        USER, PROVIDER, USER, number, to_hex(request.struct_hash()), hash_response(response),
        usage or Usage(len(prompt), 0, len(entries)), 1, number, FinishReason.LENGTH, 1_800_000_000,
        get_commitment_root(entries),
    )  # fmt: skip
    bought = Bought(offer, request, SignedReceipt(receipt, "0x"), PATH, body, response)
    return Sold(bought, list(entries))


def make_auditor(weights: int = 1) -> Auditor:
    return Auditor(ToyModel(weights, noise=OWN_NOISE), ToyReader())


@cache
def calibrate(answers: int = 240, quantile: float = 0.97) -> Calibration:
    """Honest noise of the toy between its two runtimes."""
    served, own = ToyModel(noise=SERVED_NOISE), ToyModel(noise=OWN_NOISE)
    found = []
    for number in range(answers):
        chain = (PLAIN, GREEDY)[number % 2]
        prompt = [(number * 7 + at) % 64 for at in range(12)]
        entries = served.generate(prompt, 64, chain, number)
        tokens = tuple(entry.token for entry in entries)
        measured = measure(own, Task(tuple(prompt), tokens, chain, number))
        found.append(get_statistics(entries, measured, chain))
    labels = ("cache", "concurrent=8", "threads=2")
    conditions = Conditions(MANIFEST, "Q8_0", "llama 1", "toy 1", 4_096, 1_024, labels)
    return make_calibration(conditions, found, quantile, 0.95)


def audit(sold: Sold, calibration: Calibration, auditor: Auditor | None = None) -> Audited:
    return audit_answer(sold.bought, tuple(sold.entries), auditor or make_auditor(), calibration)
