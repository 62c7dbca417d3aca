"""What a model file says of its tensors and of itself, whatever its format.

`gguf_header` and `safetensors_header` make these; the rest of `hanse.models` reads no format.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

Progress = Callable[[str, float], None]
"""Called with what is being done and how far it is (0 to 1)."""


@dataclass(frozen=True)
class Tensor:
    """One tensor's place in its file.

    Attributes:
        name: as the format has it.
        shape: outermost first, as numpy and PyTorch say it; GGUF stores it the other way round.
        dtype: storage type, such as `Q4_0` or `BF16`.
        path: the file that holds it.
        start_bytes: where its data begins, from the file's first byte.
        size_bytes: of its data.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: Path
    start_bytes: int
    size_bytes: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class ListValue:
    """A list in a header, by what tells it apart; its items are read only where they are needed.

    Attributes:
        count: of items.
        sha256: over the items as they are stored.
        first: the first few, for people.
    """

    count: int
    sha256: str
    first: tuple[object, ...]


Value = str | int | float | bool | ListValue


@dataclass(frozen=True)
class Header:
    """All that can be said of a model without reading a weight.

    Attributes:
        format: `gguf` or `safetensors`.
        paths: its files with weights, in order.
        values: the metadata, by key.
        tensors: by name, in the file's order.
    """

    format: str
    paths: tuple[Path, ...]
    values: Mapping[str, Value]
    tensors: Mapping[str, Tensor]

    def find_text(self, key: str) -> str:
        """The text under this key; empty if there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def find_int(self, key: str) -> int | None:
        """The integer under this key."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def weights(self) -> int:
        """Parameters of the model: numbers in all tensors."""
        return sum(tensor.weights for tensor in self.tensors.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors.values())


def find_overlap(tensors: Iterable[Tensor]) -> tuple[Tensor, Tensor] | None:
    """Two tensors of one file that share bytes."""
    ordered = sorted(tensors, key=lambda tensor: (tensor.start_bytes, tensor.size_bytes))
    for before, after in pairwise(ordered):
        if before.start_bytes + before.size_bytes > after.start_bytes:
            return before, after
    return None
