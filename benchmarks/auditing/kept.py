"""What a broker keeps of real answers: bytes a token, by how long they are."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.auditing.records import Record
from hanse.protocol.commitments.tree import encode_opening
from hanse.settlement.openings.kept_form import encode_kept

LENGTHS = ((1, 15), (16, 16), (17, 63), (64, 64), (65, 299), (300, 300), (301, 1_000))
"""Tokens of an answer, from and to."""

TIMED_MAX = 200
"""Answers of a length that are timed."""


def show_kept(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """A line a length: bytes a token as kept and as sent, the worst answer, and the time it takes.

    Without the row's keys (request, signer, buyer: some 340 bytes an answer, with the index).
    """
    for least, most in LENGTHS:
        answers = [one.entries for one in records if least <= len(one.tokens) <= most]
        if not answers:
            continue
        kept = [len(encode_kept(one)) for one in answers]
        tokens = sum(len(one) for one in answers)
        timed = answers[:TIMED_MAX]
        began = time.process_time()
        for one in timed:
            encode_kept(one)
        spent = time.process_time() - began
        yield {
            "kept": f"answers of {least} .. {most} tokens",
            "answers": len(answers),
            "bytes_per_token": round(sum(kept) / tokens, 3),
            "worst": round(max(n / len(one) for n, one in zip(kept, answers, strict=True)), 2),
            "bytes_per_token_sent": round(
                sum(len(encode_opening(one)) for one in answers) / tokens, 2
            ),
            "us_per_answer": round(1e6 * spent / len(timed), 1),
        }
