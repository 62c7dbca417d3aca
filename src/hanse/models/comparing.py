"""What differs between two models: metadata, tensors, and how far each tensor is from the other's.

The relative error of a tensor is the Frobenius norm of the difference over the larger of theirs.
Two quantisations of one model differ by 0.2 to 10 %; another basis, or another model, by about 140.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.models.tensors import Header, ListValue, Progress, Tensor, Value
from hanse.models.weights import read_weights
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ChangedValue:
    """A metadata key; None on the side that lacks it."""

    key: str
    first: Value | None
    second: Value | None


@dataclass(frozen=True)
class ChangedTensor:
    """A tensor that both have under this name and that is not the same in both.

    `relative_error` is None where the shapes differ.
    """

    name: str
    first: Tensor
    second: Tensor
    relative_error: float | None


@dataclass(frozen=True)
class Difference:
    """Two models held against one another; empty in all parts for the same model."""

    values: tuple[ChangedValue, ...]
    only_first: tuple[Tensor, ...]
    only_second: tuple[Tensor, ...]
    changed: tuple[ChangedTensor, ...]
    equal_tensors: int

    @property
    def is_none(self) -> bool:
        """Whether nothing differs."""
        return not (self.values or self.only_first or self.only_second or self.changed)


def compare(first: Header, second: Header, progress: Progress | None = None) -> Difference:
    """Compare two models of one format, one tensor at a time.

    Raises:
        RequestError: `model_unsupported`, their formats differ, or a type cannot be unpacked.
    """
    if first.format != second.format:
        raise RequestError(
            "model_unsupported",
            f"A {first.format} model and a {second.format} one name their tensors differently; "
            "make GGUF of both: hanse models quantise -t F16.",
        )
    shared = [name for name in first.tensors if name in second.tensors]
    changed = []
    for done, name in enumerate(shared):
        if progress:
            progress("comparing tensors", done / len(shared))
        found = _compare_tensors(first.tensors[name], second.tensors[name])
        if found is not None:
            changed.append(found)
    return Difference(
        values=tuple(_compare_values(first, second)),
        only_first=tuple(t for n, t in first.tensors.items() if n not in second.tensors),
        only_second=tuple(t for n, t in second.tensors.items() if n not in first.tensors),
        changed=tuple(changed),
        equal_tensors=len(shared) - len(changed),
    )


def get_relative_error(first: "NDArray[np.float32]", second: "NDArray[np.float32]") -> float:
    """Norm of the difference over the larger of the two norms; NaN where weights are."""
    import numpy as np

    apart = math.sqrt(float(np.square(first - second, dtype=np.float64).sum()))
    norms = [math.sqrt(float(np.square(one, dtype=np.float64).sum())) for one in (first, second)]
    return apart / max(norms) if apart else 0.0


def _compare_tensors(first: Tensor, second: Tensor) -> ChangedTensor | None:
    """How they differ; None if type, shape and every number are the same."""
    if first.shape != second.shape:
        return ChangedTensor(first.name, first, second, None)
    error = get_relative_error(read_weights(first), read_weights(second))
    if error == 0 and first.dtype == second.dtype:
        return None
    return ChangedTensor(first.name, first, second, error)


def _compare_values(first: Header, second: Header) -> Iterator[ChangedValue]:
    for key in sorted(first.values.keys() | second.values.keys()):
        one, other = first.values.get(key), second.values.get(key)
        if _to_comparable(one) != _to_comparable(other):
            yield ChangedValue(key, one, other)


def _to_comparable(value: Value | None) -> object:
    """Equal for equal values only: True is not 1, and lists are told apart by their hash."""
    if isinstance(value, ListValue):
        return (value.count, value.sha256)
    return (type(value), value)
