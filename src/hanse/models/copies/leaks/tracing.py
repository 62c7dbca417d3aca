"""Names whose copy a leaked file is, by its rounding.

Every copy is rounded in a basis of its own, so the difference between a copy's weights, brought
back to the base's coordinates, and the base's weights is a residue that no other copy has. It
survives what a thief can do without retraining: undoing the basis (`attacking`), another rotation,
rounding again. The leaked file's residue is correlated with that of every candidate, which is made
again from the candidate's key; nobody's copies need to be kept.

    score = mean over the probed matrices of the mean correlation of a column of both residues

Of the leaker it is near 1 for the file itself; of anybody else's near 0, by the figures in
`docs/measurements.md`, "Copies". Rounding by another version of the quantiser does not matter.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.keys import derive_copy_key
from hanse.models.copies.leaks.aligning import Alignment
from hanse.models.copies.leaks.attacking import match_rows
from hanse.models.copies.rebasing import CopyOrder, rebase
from hanse.models.copies.stream_basis import (
    draw_stream_basis,
    list_turned,
    rank_coordinates,
)
from hanse.models.copies.weight_files import WeightFile
from hanse.models.tensors import Progress
from hanse.protocol.commitments.copies import CopyDescription

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

ROWS_MAX = 4_096
"""Of a matrix, evenly spaced: two million weights of SmolLM2's embeddings."""

FITTED = 16
"""Tokens a dimension that the rotation is fitted to: enough that the fit takes no rounding with it,
a fifth of SmolLM2's."""

SCORE_MIN = 0.03
"""A leaker is named from here on: far above chance, which grows with fewer weights (`docs/
measurements.md`, "Copies")."""

KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", "F32")
"""Types that round every probed matrix alike, and that numpy can round: a candidate takes a second.
Of other types the whole copy is made again."""


@dataclass(frozen=True)
class Suspicion:
    """How much a leaked file looks like one candidate's copy.

    Attributes:
        copy: the candidate's.
        score: mean correlation of the residues.
        parts: the correlation of each probed matrix.
    """

    copy: CopyDescription
    score: float
    parts: Mapping[str, float]

    @property
    def is_named(self) -> bool:
        """Whether the score names this candidate."""
        return self.score >= SCORE_MIN


def trace_file(
    base: SourceModel,
    leaked: WeightFile,
    master: bytes,
    candidates: Sequence[CopyDescription],
    progress: Progress | None = None,
) -> list[Suspicion]:
    """Every candidate with its score, the highest first.

    Raises:
        VerificationError: `model_invalid`, the leaked file is no copy of this base.
    """
    found = read_residues(base, leaked)
    ranked = rank_coordinates(base)
    result = []
    for index, copy in enumerate(candidates):
        if progress:
            progress("comparing with each copy", index / len(candidates))
        if copy.quantisation in KINDS:
            key = derive_copy_key(master, copy.base_root, copy.provider, copy.epoch)
            own = make_residues(base, key, ranked, copy.quantisation)
        else:
            own = _copy_again(base, master, copy)
        parts = compare_residues(found, own, list_turned(ranked))
        result.append(Suspicion(copy, sum(parts.values()) / len(parts), parts))
    return sorted(result, key=lambda suspicion: -suspicion.score)


def read_residues(base: SourceModel, leaked: WeightFile) -> "dict[str, Matrix]":
    """The leaked file's probed matrices less the base's, in the base's coordinates."""
    shape = base.shape
    every = max(1, shape.vocabulary // (FITTED * shape.width))
    alignment = Alignment(base, leaked, every=every)
    ours, theirs = (_thin(alignment.read_rows(m, "token_embd")) for m in (base, leaked))
    residues = {"token_embd": theirs @ alignment.rotation.T - ours}
    for layer in list_layers(base):
        ours = alignment.read_matrix(base, layer, "ffn_gate")
        theirs = alignment.read_aligned(layer, "ffn_gate")
        residues[f"ffn_gate {layer}"] = _thin(theirs[match_rows(ours, theirs)] - ours)
    return residues


def make_residues(
    base: SourceModel, key: bytes, ranked: "NDArray[np.int64]", quantisation: str
) -> "dict[str, Matrix]":
    """The same of the copy that this key makes, without making it."""
    import numpy as np

    basis = draw_stream_basis(key, ranked)
    back = basis.apply(np.eye(base.shape.width, dtype=np.float32)).T
    own = _thin(base.read("token_embd.weight"))
    residues = {"token_embd": round_weights(basis.apply(own), quantisation) @ back - own}
    for layer in list_layers(base):
        gains = base.read(f"blk.{layer}.ffn_norm.weight")
        own = _thin(base.read(f"blk.{layer}.ffn_gate.weight"))
        rounded = round_weights(basis.apply(own * basis.get_ratios(gains)), quantisation)
        residues[f"ffn_gate {layer}"] = (rounded * basis.get_gains(gains)) @ back - own * gains
    return residues


def compare_residues(
    ours: "Mapping[str, Matrix]", theirs: "Mapping[str, Matrix]", turned: "NDArray[np.int64]"
) -> dict[str, float]:
    """Of each matrix the mean correlation of a column of both residues.

    Only over the coordinates that copies turn (`list_turned`): the others are rounded alike in
    many copies. Each column counts alike, however large its residue.
    """
    import numpy as np

    result = {}
    for name in ours:
        first, second = ours[name][:, turned], theirs[name][:, turned]
        lengths = np.linalg.norm(first, axis=0) * np.linalg.norm(second, axis=0)
        products = np.einsum("ij,ij->j", first, second)
        result[name] = float(np.mean(products / np.maximum(lengths, 1e-30)))
    return result


def list_layers(base: SourceModel) -> list[int]:
    """The probed layers: first, middle, last."""
    return sorted({0, base.shape.layers // 2, base.shape.layers - 1})


def round_weights(rows: "Matrix", quantisation: str) -> "Matrix":
    """Weights as they come back from a quantised file; of a type of KINDS."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[quantisation]
    return np.asarray(dequantize(quantize(rows, kind), kind), dtype=np.float32)


def _copy_again(base: SourceModel, master: bytes, copy: CopyDescription) -> "dict[str, Matrix]":
    """The residues of a copy that only llama.cpp can round; its file is thrown away."""
    order = CopyOrder(
        master=master,
        base_root=copy.base_root,
        provider=copy.provider,
        epoch=copy.epoch,
        canaries=copy.canary_count,
    )
    with tempfile.TemporaryDirectory(prefix="hanse-trace-") as folder:
        target = Path(folder) / "copy.gguf"
        rebase(base.path, target, order, copy.quantisation)
        return read_residues(base, WeightFile(target))


def _thin(rows: "Matrix") -> "Matrix":
    return rows[:: -(-len(rows) // ROWS_MAX)]
