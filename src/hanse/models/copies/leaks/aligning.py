"""Finds the change of basis between a base model and a copy of it, without any key.

Everybody who has the base can do this: the rows of embeddings and output head are the same tokens
in both files, so the rotation between them is a least-squares fit (orthogonal Procrustes). With it
every matrix of the copy can be brought back to the base's coordinates. `attacking` shows what that
gives away, `tracing` uses it to find the rounding that names a leaker.
"""

from typing import TYPE_CHECKING

from hanse.models.copies.architectures import Shape, SourceModel
from hanse.models.copies.graphs import add_spare_heads
from hanse.models.copies.symmetries import pad_heads, split_pairs
from hanse.models.copies.weight_files import WeightFile
from hanse.protocol.errors import VerificationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

READS_BY = {
    "attn_q": "attn_norm", "attn_k": "attn_norm", "attn_v": "attn_norm",
    "ffn_gate": "ffn_norm", "ffn_up": "ffn_norm",
}  # fmt: skip
"""A matrix that reads the stream, and the norm that it reads it through."""


class Alignment:
    """A copy, its base, and the rotation between them: base row x is copy row x Q.

    Attributes:
        served: the base's shape with the spare heads that a copy may have.
        rotation: Q as it was fitted [N, N].
        residual: relative error of the fit over the rows it was fitted to.
    """

    def __init__(self, base: SourceModel, copy: WeightFile, every: int = 1) -> None:
        """Fit the rotation.

        Args:
            base: the public model.
            copy: a file made from it.
            every: use only each so many rows, from the first.

        Raises:
            VerificationError: `model_invalid`, the file is no copy of this base.
        """
        import numpy as np

        self.base, self.copy = base, copy
        self.served = add_spare_heads(base.shape)
        _check_shapes(base, copy)
        pairs = [
            (self.read_rows(base, name)[::every], self.read_rows(copy, name)[::every])
            for name in ("token_embd", "output")
        ]
        # each table counts alike, however long its rows are
        sums = [ours.T @ theirs / (np.linalg.norm(ours) ** 2) for ours, theirs in pairs]
        left, _, right = np.linalg.svd(sum(sums))
        self.rotation: Matrix = left @ right
        errors = [
            np.linalg.norm(ours @ self.rotation - theirs) / np.linalg.norm(theirs)
            for ours, theirs in pairs
        ]
        self.residual = float(np.mean(errors))

    def read_rows(self, model: WeightFile, name: str) -> "Matrix":
        """Embeddings, or the head with the last norm's gains, of the base's vocabulary."""
        count = self.base.shape.vocabulary
        if name == "token_embd":
            return model.read("token_embd.weight")[:count]
        return self.read_head(model)[:count]

    def read_head(self, model: WeightFile) -> "Matrix":
        """All rows of the head, canaries included, with the last norm's gains."""
        return model.read_head() * model.read("output_norm.weight")

    def read_matrix(self, model: WeightFile, layer: int, name: str) -> "Matrix":
        """A layer's matrix as a map from or to the unscaled stream, pairs half a head apart."""
        weights = model.read(f"blk.{layer}.{name}.weight")
        if name in READS_BY:
            weights = weights * model.read(f"blk.{layer}.{READS_BY[name]}.weight")
        if name in ("attn_q", "attn_k") and model.architecture == "llama":
            weights = split_pairs(weights, as_pairwise(self.base.shape))
        if model is self.base:
            weights = pad_heads(name, weights, self.base.shape, self.served)
        return weights

    def read_aligned(self, layer: int, name: str) -> "Matrix":
        """The copy's matrix with its stream side brought back to the base's coordinates."""
        weights = self.read_matrix(self.copy, layer, name)
        if name in ("attn_output", "ffn_down"):
            return self.rotation @ weights
        return weights @ self.rotation.T


def as_pairwise(shape: Shape) -> Shape:
    """The same shape in Llama's layout of rotary pairs."""
    from dataclasses import replace

    return replace(shape, architecture="llama")


def _check_shapes(base: SourceModel, copy: WeightFile) -> None:
    rows, width = copy.count_rows("token_embd.weight"), copy.get_setting("{}.embedding_length")
    layers = copy.get_setting("{}.block_count")
    shape = base.shape
    if rows < shape.vocabulary or (width, layers) != (shape.width, shape.layers):
        raise VerificationError(
            "model_invalid",
            f"{copy.path.name} has {layers} layers of width {width} and {rows} embeddings, "
            f"{base.path.name} has {shape.layers}, {shape.width} and {shape.vocabulary}: "
            "it is no copy of this base.",
        )
