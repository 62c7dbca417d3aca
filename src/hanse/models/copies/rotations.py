"""Orthogonal matrices drawn from a key that can be applied alike on every machine.

A dense random matrix by QR would be the textbook's choice, but QR and the product with it go
through BLAS, whose sums differ in their last bits between machines; after quantisation that would
be other bytes. Here a rotation of n dimensions is a few rounds; in each the coordinates are
permuted, then turned in pairs (i, i + n/2) by an angle of each pair's own. Every step is a
multiplication, addition or subtraction of float32, rounded exactly by IEEE 754. After 3 log2(n)
rounds the entries are nearly normal: their kurtosis is 3.1 to 3.3, of a random orthogonal matrix 3.

    rotation = draw_rotation(KeyStream(copy_key, "residual"), 576)
    reads = rotation.apply(weight)            # weight [out, 576], reads the stream: W Q
    writes = rotation.apply(weight.T).T       # weight [576, in], writes to it: Q^T W

Source: Kac's walk; the same idea makes fast "incoherence" transforms (QuIP#, arXiv 2402.04396).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.models.copies.keys import KeyStream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK_BYTES = 512 * 1024
"""Rows are turned in blocks of about this size, which stay in a core's second-level cache."""

ROUNDS = 3
"""Times log2(n). With 2 the kurtosis is 5 and single entries stand out."""


@dataclass(frozen=True)
class Rotation:
    """An orthogonal matrix Q of `width` dimensions.

    Attributes:
        orders: the permutation of each round [rounds, N].
        cosines, sines: of each round's angles [rounds, N / 2].
    """

    orders: "NDArray[np.int64]"
    cosines: "NDArray[np.float32]"
    sines: "NDArray[np.float32]"

    @property
    def width(self) -> int:
        """N, the dimensions that are turned."""
        return int(self.orders.shape[1])

    def apply(self, rows: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Every row x of [rows, N] as x Q; the same bits whatever the number of rows."""
        import numpy as np

        result = np.empty(rows.shape, dtype=np.float32)
        step = max(1, BLOCK_BYTES // (4 * self.width))
        for start in range(0, len(rows), step):
            block = np.ascontiguousarray(rows[start : start + step].T, dtype=np.float32)
            result[start : start + step] = self._turn(block).T
        return result

    def _turn(self, columns: "NDArray[np.float32]") -> "NDArray[np.float32]":
        import numpy as np

        half = self.width // 2
        for order, cosine, sine in zip(self.orders, self.cosines, self.sines, strict=True):
            mixed = columns[order]
            low, high = mixed[:half], mixed[half:]
            columns = np.empty_like(mixed)
            # separate ufuncs: a fused multiply-add would round differently
            np.subtract(low * cosine[:, None], high * sine[:, None], out=columns[:half])
            np.add(low * sine[:, None], high * cosine[:, None], out=columns[half:])
        return columns


def draw_rotation(stream: KeyStream, width: int) -> Rotation:
    """The next rotation of this stream: for each round its permutation, then its angles.

    Args:
        stream: where it comes from.
        width: dimensions, even.
    """
    import numpy as np

    if width < 2 or width % 2:
        raise ValueError(f"a rotation has an even number of dimensions, not {width}")
    rounds = ROUNDS * max(1, (width - 1).bit_length())
    orders, cosines, sines = [], [], []
    for _ in range(rounds):
        orders.append(stream.draw_permutation(width))
        cosine, sine = stream.draw_turns(width // 2)
        cosines.append(cosine)
        sines.append(sine)
    return Rotation(np.stack(orders), np.stack(cosines), np.stack(sines))
