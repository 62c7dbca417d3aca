"""The best attack that we know: undoes a copy's change of basis with the public base at hand.

    1. rotation of the stream: fitted to every second token's rows (`aligning`)
    2. vocabulary: the other tokens' rows, brought back, find their nearest row of the base
    3. feed-forward: each hidden unit by its nearest gate row, its sign by the up row
    4. values and output: each KV head by Procrustes against each of the base's
    5. queries and keys: each head by the turn of each rotary pair
    6. canaries: the rows behind the base's vocabulary, brought back

What it shows is that a copy hides nothing from whoever has the base: at the end the thief holds
the base's weights (rounded twice) and the canary rows, and can serve either. What it does not
undo is the rounding, by which `tracing` still names whose copy it was.

Source: ArrowMatch (USENIX Security 2025) attacks obfuscated models in the same way.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from hanse.models.copies.architectures import Shape, SourceModel
from hanse.models.copies.leaks.aligning import Alignment
from hanse.models.copies.weight_files import WeightFile
from hanse.models.tensors import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

SAMPLE = 1_024
"""Tokens that look for their nearest row; each is compared with the whole vocabulary."""


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What the attack got out of one copy. Shares are of 1.

    Attributes:
        tokens_matched: of tokens that the fit had not seen, nearest to their own row of the base.
        rotation_residual: of the fit; about the rounding of the embeddings.
        hidden_matched: feed-forward units that found a unit of the base, each another one.
        heads_matched: KV and query heads, likewise.
        weights_error: of all layers' matrices brought back, against the base's; relative.
        canaries_found: rows behind the base's vocabulary.
        layers: that were undone.
        seconds: of the whole.
    """

    tokens_matched: float
    rotation_residual: float
    hidden_matched: float
    heads_matched: float
    weights_error: float
    canaries_found: int
    layers: int
    seconds: float


@dataclass(frozen=True)
class Loot:
    """The result, and what can be held against the key where that is known."""

    recovered: Recovered
    rotation: "Matrix"
    canaries: "Matrix"


def attack(base: SourceModel, copy: WeightFile, progress: Progress | None = None) -> Loot:
    """Undo the copy.

    Raises:
        VerificationError: `model_invalid`, the file is no copy of this base.
    """
    import numpy as np

    begun = time.perf_counter()
    if progress:
        progress("fitting the rotation", 0.0)
    # the rows in between stay unseen, to be matched
    held_out = Alignment(base, copy, every=2)
    matched = _match_tokens(held_out)
    fitted = Alignment(base, copy)
    found = []
    for layer in range(base.shape.layers):
        if progress:
            progress("undoing the layers", layer / base.shape.layers)
        found.append(_undo_layer(fitted, layer))
    hidden, heads, errors = (np.mean(part) for part in zip(*found, strict=True))
    canaries = fitted.read_head(copy)[base.shape.vocabulary :] @ fitted.rotation.T
    recovered = Recovered(
        tokens_matched=matched,
        rotation_residual=fitted.residual,
        hidden_matched=float(hidden),
        heads_matched=float(heads),
        weights_error=float(errors),
        canaries_found=len(canaries),
        layers=base.shape.layers,
        seconds=time.perf_counter() - begun,
    )
    return Loot(recovered, fitted.rotation, canaries)


def match_rows(ours: "Matrix", theirs: "Matrix") -> "NDArray[np.int64]":
    """For each of our rows the nearest of theirs, by the cosine."""
    nearest: NDArray[np.int64] = (_to_unit(ours) @ _to_unit(theirs).T).argmax(axis=1)
    return nearest


def _match_tokens(alignment: Alignment) -> float:
    import numpy as np

    own = _to_unit(alignment.read_rows(alignment.base, "token_embd"))
    theirs = alignment.read_rows(alignment.copy, "token_embd")
    unseen = np.arange(1, len(own), 2)
    chosen = unseen[:: max(1, len(unseen) // SAMPLE)]
    nearest = (_to_unit(theirs[chosen] @ alignment.rotation.T) @ own.T).argmax(axis=1)
    # rows that are equal in the base (unused tokens) cannot be told apart by anybody
    same = np.einsum("ij,ij->i", own[nearest], own[chosen]) > 1 - 1e-6
    return float(same.mean())


def _undo_layer(alignment: Alignment, layer: int) -> tuple[float, float, float]:
    """Shares of hidden units and heads matched, and the relative error of the weights."""
    import numpy as np

    base = {name: alignment.read_matrix(alignment.base, layer, name) for name in _MATRICES}
    copy = {name: alignment.read_aligned(layer, name) for name in _MATRICES}
    hidden = _undo_hidden(base, copy)
    heads = _undo_values(base, copy, alignment.served)
    queries = _undo_pairs(base, copy, alignment.served)
    errors = [np.linalg.norm(copy[name] - base[name]) / np.linalg.norm(base[name]) for name in base]
    return hidden, (heads + queries) / 2, float(np.mean(errors))


def _undo_hidden(base: "dict[str, Matrix]", copy: "dict[str, Matrix]") -> float:
    import numpy as np

    where = match_rows(base["ffn_gate"], copy["ffn_gate"])
    up = copy["ffn_up"][where]
    signs: Matrix = np.sign(np.einsum("ij,ij->i", up, base["ffn_up"]))
    copy["ffn_gate"] = copy["ffn_gate"][where]
    copy["ffn_up"] = up * signs[:, None]
    copy["ffn_down"] = copy["ffn_down"][:, where] * signs
    return len(set(where.tolist())) / len(where)


def _undo_values(base: "dict[str, Matrix]", copy: "dict[str, Matrix]", shape: Shape) -> float:
    """KV heads by their values; the output's query heads are matched within their group."""
    import numpy as np

    count, width = shape.kv_heads, shape.head_width
    ours, theirs = (w["attn_v"].reshape(count, width, -1) for w in (base, copy))
    cross = np.einsum("ian,jbn->ijab", ours, theirs)
    left, strength, right = np.linalg.svd(cross)
    where = strength.sum(axis=2).argmax(axis=1)
    turns = np.stack([left[i, j] @ right[i, j] for i, j in enumerate(where)])  # V = turn V'
    copy["attn_v"] = np.einsum("iab,ibn->ian", turns, theirs[where]).reshape(copy["attn_v"].shape)
    columns = copy["attn_output"].reshape(shape.width, count, -1, width)[:, where]
    turned = np.einsum("nkgb,kab->nkga", columns, turns)
    wanted = base["attn_output"].reshape(turned.shape)
    matched = size = 0
    for k in range(count):
        match = np.einsum("nga,nha->gh", wanted[:, k], turned[:, k]).argmax(axis=1)
        real = np.abs(wanted[:, k]).sum(axis=(0, 2)) > 0  # a spare head is zero
        turned[:, k] = turned[:, k][:, match] * real[:, None]
        matched += len(set(match[real].tolist()))
        size += int(real.sum())
    copy["attn_output"] = turned.reshape(copy["attn_output"].shape)
    return (len(set(where.tolist())) / count + matched / size) / 2


def _undo_pairs(base: "dict[str, Matrix]", copy: "dict[str, Matrix]", shape: Shape) -> float:
    """Heads of queries and keys, each rotary pair as one complex number."""
    import numpy as np

    shares = []
    for name in ("attn_q", "attn_k"):
        ours, theirs = (_to_complex(weights[name], shape) for weights in (base, copy))
        turns = np.einsum("ipn,jpn->ijp", ours, theirs.conj())
        where = np.abs(turns).sum(axis=2).argmax(axis=1)
        turn = turns[np.arange(len(where)), where]
        back = theirs[where] * (turn / np.maximum(np.abs(turn), 1e-30))[:, :, None]
        joined = np.stack((back.real, back.imag), axis=1)
        copy[name] = joined.reshape(copy[name].shape).astype(np.float32)
        real = np.abs(ours).sum(axis=(1, 2)) > 0  # a spare head is zero
        shares.append(len(set(where[real].tolist())) / int(real.sum()))
    return float(np.mean(shares))


def _to_complex(rows: "Matrix", shape: Shape) -> "NDArray[np.complex64]":
    halves = rows.reshape(-1, 2, shape.head_width // 2, rows.shape[1])
    return halves[:, 0] + 1j * halves[:, 1]


def _to_unit(rows: "Matrix") -> "Matrix":
    import numpy as np

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Matrix = rows / np.maximum(lengths, np.float32(1e-12))
    return unit


_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
