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

from hanse.models.quantising.files import quantise_file
from hanse.models.quantising.scoring import PIECE_TOKENS, LlamaRun
from hanse.models.tensors import Progress
from hanse.protocol.errors import VerificationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VALUES_MIN = 100
"""Logprobs that have to be listed in all; with fewer chance correlates."""

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


def parse_told(body: Any, prompt: Sequence[int]) -> Told:
    """Read the `logprobs` of an answer of `/completions`, in the form that has token ids.

    Raises:
        VerificationError: `response_malformed`, it lists no logprobs, or not by token id.
    """
    try:
        content = body["choices"][0]["logprobs"]["content"]
        answer = tuple(int(entry["id"]) for entry in content)
        listed = tuple(
            tuple((int(item["id"]), float(item["logprob"])) for item in entry["top_logprobs"])
            for entry in content
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise VerificationError(
            "response_malformed",
            "The endpoint's answer lists no logprobs with token ids; llama.cpp's server does at "
            "/v1/completions.",
        ) from error
    return Told(tuple(prompt), answer, listed)


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
            ordinary = [_drop_canaries(answer, run.vocabulary) for answer in told]
            known = _read_listed(run, ordinary)
    seen = _join(
        _center(_list_values(answer) - part) for answer, part in zip(ordinary, known, strict=True)
    )
    if len(seen) < VALUES_MIN:
        raise VerificationError(
            "response_malformed",
            f"The endpoint listed {len(seen)} comparable logprobs, {VALUES_MIN} are needed.",
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
    """Without tokens that the base does not have."""
    listed = tuple(
        tuple((token, value) for token, value in place if 0 <= token < vocabulary)
        for place in answer.listed
    )
    return Told(answer.prompt, answer.answer, listed)


def _read_listed(run: LlamaRun, told: Sequence[Told]) -> "list[NDArray[np.float64]]":
    """The model's own logits of what was listed, [answer, listed] for each answer."""
    import numpy as np

    result = []
    for answer in told:
        run.read([*answer.prompt, *answer.answer][:PIECE_TOKENS])
        rows = [
            run.get_logits(place)[[token for token, _ in listed]]
            for place, listed in _list_places(answer)
        ]
        result.append(np.array(rows, dtype=np.float64))
    return result


def _join(parts: "Iterable[NDArray[np.float64]]") -> "NDArray[np.float64]":
    import numpy as np

    joined: NDArray[np.float64] = np.concatenate([part.ravel() for part in parts])
    return joined


def _list_values(answer: Told) -> "NDArray[np.float64]":
    import numpy as np

    return np.array([[value for _, value in listed] for _, listed in _list_places(answer)])


def _list_places(answer: Told) -> "list[tuple[int, tuple[tuple[int, float], ...]]]":
    """Where each token of the answer was chosen, and the same number of listed tokens at each."""
    start = len(answer.prompt) - 1
    count = min((len(listed) for listed in answer.listed), default=0)
    last = min(len(answer.answer), PIECE_TOKENS - len(answer.prompt))
    return [(start + index, answer.listed[index][:count]) for index in range(last)]


def _center(rows: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Without each position's own mean: logits and logprobs differ by no more."""
    import numpy as np

    centered: NDArray[np.float64] = rows - rows.mean(axis=1, keepdims=True)
    return centered
