"""A GGUF model opened for its weights: any tensor as float32, one at a time.

The header is checked by our own reader before the gguf package, which trusts what it reads, sees
the file.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.models.gguf_header import read_gguf_header
from hanse.protocol.errors import VerificationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class WeightFile:
    """Metadata and weights of one GGUF file."""

    def __init__(self, path: Path) -> None:
        """Open.

        Raises:
            VerificationError: `model_invalid`, it is no valid GGUF file.
        """
        read_gguf_header(path)
        self.path = path
        self.reader: Any = _open_reader(path)
        self._tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self._add_single_experts()

    @property
    def architecture(self) -> str:
        """As the file names it."""
        return str(self.reader.fields["general.architecture"].contents())

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._tensors)

    def get_setting(self, key: str) -> Any:
        """A value of the metadata, None if there is none; `{}` stands for the architecture."""
        field = self.reader.fields.get(key.format(self.architecture))
        return None if field is None else field.contents()

    def has(self, name: str) -> bool:
        """Whether the file has this tensor."""
        return name in self._tensors

    def count_rows(self, name: str) -> int:
        """The outermost dimension of a tensor."""
        return int(self._tensors[name].data.shape[0])

    def _add_single_experts(self) -> None:
        """Find a feed-forward part with one expert under a plain one's names too."""
        for name in ("ffn_gate", "ffn_up", "ffn_down"):
            for layer in range(self.get_setting("{}.block_count") or 0):
                expert = self._tensors.get(f"blk.{layer}.{name}_exps.weight")
                if expert is not None and expert.data.shape[0] == 1:
                    self._tensors.setdefault(f"blk.{layer}.{name}.weight", expert)

    def read(self, name: str) -> "NDArray[np.float32]":
        """A tensor as float32, outermost dimension first.

        Raises:
            VerificationError: `model_invalid`, there is no such tensor.
        """
        import numpy as np
        from gguf.quants import dequantize

        tensor = self._tensors.get(name)
        if tensor is None:
            raise VerificationError(
                "model_invalid", f"{self.path.name} has no tensor {name}: it is no such model."
            )
        # not as a memory map, whose every slice costs microseconds
        raw = np.asarray(tensor.data)
        if raw.ndim == 3:  # one expert's
            raw = raw[0]
        values = dequantize(raw, tensor.tensor_type)
        return np.asarray(values, dtype=np.float32)

    def read_head(self) -> "NDArray[np.float32]":
        """The output head; of a tied model the embeddings."""
        return self.read("output.weight" if self.has("output.weight") else "token_embd.weight")


def _open_reader(path: Path) -> Any:
    """The package's reader, which slices a memory map for every token of the vocabulary.

    A view as a plain array is three times as fast: 0.8 s instead of 2.5 for 49,152 tokens.
    """
    import numpy as np
    from gguf import GGUFReader

    class PlainReader(GGUFReader):
        def _get(self, *place: Any, **form: Any) -> Any:
            self.data: Any = np.asarray(self.data)
            return super()._get(*place, **form)

    return PlainReader(str(path))
