"""Names whose copy answers behind an endpoint that returns logprobs: nothing else is needed of it.

The endpoint answers a few prompts at temperature 0 with its logprobs. The base and every
candidate's copy then read the same tokens. What a copy's rounding does to logprobs is as much its
own as the rounding itself:

    residue = logprobs told - logprobs of the base, over the tokens that were listed
    score   = correlation of the endpoint's residue with a candidate's

The base is read in float32, so that no rounding of its own stands in both residues (its own Q4_1
file instead gives strangers a score of 0.5). Each position's mean is taken out, since the listed
logprobs may be over another vocabulary, with or without canaries. The candidates' files are needed,
a prefill of each, and disk for the base in float32 for a while.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.models.copies.leaks.spelling import Spelling
from hanse.models.quantising.files import quantise_file
from hanse.models.quantising.scoring import PIECE_TOKENS, LlamaRun
from hanse.models.tensors import Progress
from hanse.protocol.errors import VerificationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VALUES_MIN = 100
"""Logprobs that have to be listed in all; with fewer chance correlates."""

LISTED_MIN = 2
"""Logprobs of one place; of a single one nothing is left once its mean is taken out."""

SCORE_MIN = 0.5
"""A candidate is named from here on; see `docs/measurements.md` for what others reach."""


@dataclass(frozen=True)
class Told:
    """One answer of the endpoint.

    Attributes:
        prompt: its tokens.
        answer: its tokens, as generated.
        listed: for each token of the answer the (token, logprob) pairs that were listed there.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    listed: tuple[tuple[tuple[int, float], ...], ...]


def parse_told(body: Any, prompt: Sequence[int], spelling: Spelling) -> Told:
    """Read the `logprobs` of an answer of `/completions`: llama.cpp's form with ids, or by text.

    From the first token on whose text leads to no id nothing is told.

    Raises:
        VerificationError: `response_malformed`, it lists no logprobs.
    """
    try:
        logprobs = body["choices"][0]["logprobs"]
        if "content" in logprobs:
            entries = [
                (
                    _get_id(entry, spelling),
                    [(item, item["logprob"]) for item in entry["top_logprobs"]],
                )
                for entry in logprobs["content"]
            ]
        else:
            named = zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True)
            entries = [
                (spelling.find_id(token), [*(listed or {}).items()]) for token, listed in named
            ]
        answer, listed = [], []
        for token, items in entries:
            if token < 0:
                break
            answer.append(token)
            found = [(_get_id(item, spelling), float(value)) for item, value in items]
            listed.append(tuple(pair for pair in found if pair[0] >= 0))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(
            "response_malformed",
            "The endpoint's answer lists no logprobs at /completions; llama.cpp's server and vLLM "
            "do.",
        ) from error
    return Told(tuple(prompt), tuple(answer), tuple(listed))


def _get_id(item: Any, spelling: Spelling) -> int:
    if isinstance(item, str):
        return spelling.find_id(item)
    return int(item["id"]) if "id" in item else spelling.find_id(item["token"])


def compare_answers(
    base: Path,
    candidates: Sequence[Path],
    told: Sequence[Told],
    threads: int,
    progress: Progress | None = None,
) -> list[float]:
    """The score of every candidate's file.

    Raises:
        VerificationError: `response_malformed`, too little was listed.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="hanse-trace-") as folder:
        exact = Path(folder) / "base.gguf"
        quantise_file(base, exact, "F32", threads=threads, progress=progress)
        with LlamaRun(exact, threads, is_exact=True) as run:
            whole = [_drop_canaries(answer, run.vocabulary) for answer in told]
            ordinary = [answer for answer in whole if list_places(answer)]
            known = _read_listed(run, ordinary)
    count = sum(part.size for part in known)
    if count < VALUES_MIN:
        raise VerificationError(
            "response_malformed",
            f"The endpoint listed {count} comparable logprobs, {VALUES_MIN} are needed.",
        )
    seen = _join(
        _center(_list_values(answer) - part) for answer, part in zip(ordinary, known, strict=True)
    )
    scores = []
    for index, path in enumerate(candidates):
        if progress:
            progress("reading with each copy", index / len(candidates))
        with LlamaRun(path, threads) as run:
            own = _read_listed(run, ordinary)
        residue = _join(_center(part - at_base) for part, at_base in zip(own, known, strict=True))
        lengths = float(np.linalg.norm(seen) * np.linalg.norm(residue))
        scores.append(float(np.vdot(seen, residue)) / lengths if lengths else 0.0)
    return scores


def _drop_canaries(answer: Told, vocabulary: int) -> Told:
    """Without tokens that the base does not have, and without what follows an answer's first."""
    strange = (at for at, token in enumerate(answer.answer) if not 0 <= token < vocabulary)
    end = next(strange, len(answer.answer))
    listed = tuple(
        tuple((token, value) for token, value in place if 0 <= token < vocabulary)
        for place in answer.listed[:end]
    )
    return Told(answer.prompt, answer.answer[:end], listed)


def _read_listed(run: LlamaRun, told: Sequence[Told]) -> "list[NDArray[np.float64]]":
    """The model's own logits of what was listed, [answer, listed] for each answer."""
    import numpy as np

    result = []
    for answer in told:
        run.read([*answer.prompt, *answer.answer][:PIECE_TOKENS])
        rows = [
            run.get_logits(place)[[token for token, _ in listed]]
            for place, listed in list_places(answer)
        ]
        result.append(np.array(rows, dtype=np.float64))
    return result


def _join(parts: "Iterable[NDArray[np.float64]]") -> "NDArray[np.float64]":
    import numpy as np

    joined: NDArray[np.float64] = np.concatenate([part.ravel() for part in parts])
    return joined


def _list_values(answer: Told) -> "NDArray[np.float64]":
    import numpy as np

    return np.array([[value for _, value in listed] for _, listed in list_places(answer)])


def list_places(answer: Told) -> "list[tuple[int, tuple[tuple[int, float], ...]]]":
    """Where the answer's tokens were chosen, and as many listed ones at each that told enough."""
    start = len(answer.prompt) - 1
    lengths = [len(listed) for listed in answer.listed]
    count = min((length for length in lengths if length >= LISTED_MIN), default=0)
    last = min(len(answer.answer), PIECE_TOKENS - len(answer.prompt))
    told = (index for index in range(last) if count and lengths[index] >= count)
    return [(start + index, answer.listed[index][:count]) for index in told]


def _center(rows: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Without each position's own mean: logits and logprobs differ by no more."""
    import numpy as np

    centered: NDArray[np.float64] = rows - rows.mean(axis=1, keepdims=True)
    return centered
