"""The basis of a copy's residual stream: rotated in groups, so that norms keep their gains.

The textbook folds every RMSNorm gain into the next weights and turns the whole stream by one
matrix. That is exact, and at 4 bits it is bad: a few coordinates of the stream are a hundred times
larger than the rest, and models hold them down by tiny gains. Folded away and turned, their weight
falls on the rounding noise of every weight (figures: `docs/measurements.md`, "Copies"). So
coordinates are ranked by their gains. The quietest eighth is permuted and its signs are drawn, and
it keeps its gains. The others are turned in groups of GROUP neighbours in rank; a group has one
gain in each norm, the median of its own, and only the ratio to it is folded into the weights.

Every step is exact (division, sorting, median), so all machines rank alike.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.keys import KeyStream
from hanse.models.copies.rotations import Rotation, draw_rotation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP = 128
"""Coordinates that are turned together: four blocks of llama.cpp's quantisations."""

BLOCK = 32
"""Weights of a block that share a scale: kept coordinates fill whole ones."""

KEPT_SHARE = 8
"""One in so many coordinates keeps its gains. Of SmolLM2's 576, 64; 32 and 128 were worse."""


@dataclass(frozen=True)
class Section:
    """Coordinates that stand together in the copy.

    Attributes:
        columns: which of the base's, in the section's order.
        signs: +1 or -1 for each.
        rotation: what turns them; None if they keep their gains.
    """

    columns: "NDArray[np.int64]"
    signs: "NDArray[np.float32]"
    rotation: Rotation | None


@dataclass(frozen=True)
class StreamBasis:
    """An orthogonal change of the residual stream, and what it does to norms."""

    sections: tuple[Section, ...]

    def apply(self, rows: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Every row x of [rows, N], in the base's coordinates, as x Q."""
        import numpy as np

        parts = []
        for section in self.sections:
            part = rows[:, section.columns] * section.signs
            parts.append(section.rotation.apply(part) if section.rotation else part)
        return np.concatenate(parts, axis=1)

    def get_gains(self, gains: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """A norm's gains in the copy, in the copy's order."""
        import numpy as np

        return np.concatenate([_get_section_gains(section, gains) for section in self.sections])

    def get_ratios(self, gains: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """What is left of a norm's gains to be folded into the weights, in the base's order."""
        import numpy as np

        kept = np.empty_like(gains)
        for section in self.sections:
            kept[section.columns] = _get_section_gains(section, gains)
        return gains / kept


def rank_coordinates(source: SourceModel) -> "NDArray[np.int64]":
    """The stream's coordinates, those that norms hold down most first."""
    import numpy as np

    names = [f"blk.{layer}.{kind}_norm" for layer in range(source.shape.layers)
             for kind in ("attn", "ffn")]  # fmt: skip
    gains = np.abs(np.stack([source.read(f"{name}.weight") for name in (*names, "output_norm")]))
    middle = np.median(gains, axis=1, keepdims=True)
    relative = gains / np.where(middle > 0, middle, np.float32(1))
    return np.argsort(np.median(relative, axis=0), kind="stable").astype(np.int64)


def list_turned(ranked: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """The coordinates that copies turn: all but those that keep their gains."""
    return ranked[_count_kept(len(ranked)) :]


def draw_stream_basis(copy_key: bytes, ranked: "NDArray[np.int64]") -> StreamBasis:
    """The basis of this key: signs and orders of the sections, their rotations, their order."""
    stream = KeyStream(copy_key, "residual")
    width = len(ranked)
    kept = _count_kept(width)
    sections = []
    for start in (0, *range(kept, width, GROUP)):
        columns = ranked[start : start + GROUP] if start else ranked[:kept]
        columns = columns[stream.draw_permutation(len(columns))]
        signs = stream.draw_signs(len(columns))
        rotation = draw_rotation(stream, len(columns)) if start else None
        sections.append(Section(columns, signs, rotation))
    return StreamBasis(tuple(sections[index] for index in stream.draw_permutation(len(sections))))


def _count_kept(width: int) -> int:
    return max(BLOCK, width // KEPT_SHARE // BLOCK * BLOCK)


def _get_section_gains(section: Section, gains: "NDArray[np.float32]") -> "NDArray[np.float32]":
    import numpy as np

    own = gains[section.columns]
    if section.rotation is not None:
        own = np.full_like(own, np.median(np.abs(own)))
    # a gain of zero can stay in the ratio alone
    return np.where(own == 0, np.float32(1), own)
