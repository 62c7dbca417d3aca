"""Opens a model, whatever its format: the headers of all its files as one.

Of a folder with safetensors the settings come from `config.json`, under `config.`; of a split GGUF
the metadata is the first part's.
"""

from pathlib import Path
from typing import Any

import msgspec

from hanse.models.gguf_header import read_gguf_header
from hanse.models.model_files import ModelFiles, list_model_files
from hanse.models.safetensors_header import read_safetensors_header
from hanse.models.tensors import Header, Tensor, Value
from hanse.protocol.errors import VerificationError
from hanse.protocol.nesting import is_nested_too_deep

SETTINGS_BYTES_MAX = 4 * 2**20
"""Of config.json (1 to 5 kB) and tokenizer_config.json (up to 200 kB)."""
INDEX_BYTES_MAX = 16 * 2**20
"""Of model.safetensors.index.json: a line a tensor."""
TOKENIZER_BYTES_MAX = 128 * 2**20
"""Of tokenizer.json; Gemma 3's has 33 MB."""


def open_model(path: Path) -> tuple[ModelFiles, Header]:
    """The files of the model at `path` and what their headers say.

    Raises:
        RequestError: `not_found`, there is nothing.
        VerificationError: `model_invalid`, with the reason.
    """
    files = list_model_files(path)
    weights = [file for file in files.paths if file.suffix in (".gguf", ".safetensors")]
    formats = {file.suffix for file in weights}
    if len(formats) != 1:
        what = (
            "both GGUF and safetensors" if formats else "no weights: neither GGUF nor safetensors"
        )
        raise VerificationError("model_invalid", f"{path.name or path} holds {what}.")
    if formats == {".gguf"}:
        return files, _join_gguf(weights)
    header = _join(Header("safetensors", (), {}, {}), [read_safetensors_header(w) for w in weights])
    if path.is_dir():
        values = dict(header.values) | _read_config(files)
        header = Header(header.format, header.paths, values, header.tensors)
        _check_index(files, header)
    return files, header


def read_document(path: Path, bytes_max: int) -> dict[str, Any]:
    """A JSON object of a model's folder, within limits.

    Raises:
        VerificationError: `model_invalid`.
    """
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise VerificationError("model_invalid", f"{path.name} is longer than {bytes_max} bytes.")
    if is_nested_too_deep(data):
        raise VerificationError("model_invalid", f"{path.name} is nested too deep.")
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise VerificationError(
            "model_invalid", f"{path.name} is no JSON object: {error}."
        ) from None


def _join_gguf(paths: list[Path]) -> Header:
    headers = [read_gguf_header(path) for path in paths]
    claimed = headers[0].find_int("split.count") or 1
    if len(headers) == 1 and claimed > 1:
        raise VerificationError(
            "model_invalid", f"{paths[0].name} is one of {claimed} parts; its name does not say so."
        )
    if len(headers) > 1 and claimed != len(headers):
        raise VerificationError(
            "model_invalid",
            f"There are {len(headers)} GGUF files, and the first claims {claimed} parts: name the "
            "one that is meant.",
        )
    return _join(headers[0], headers[1:])


def _join(first: Header, others: list[Header]) -> Header:
    """One header of several files; a tensor may be in one of them only."""
    tensors: dict[str, Tensor] = dict(first.tensors)
    values: dict[str, Value] = dict(first.values)
    for header in others:
        twice = sorted(tensors.keys() & header.tensors.keys())
        if twice:
            raise VerificationError(
                "model_invalid", f"The tensor {twice[0]!r} is in two files of the model."
            )
        tensors.update(header.tensors)
        values = dict(header.values) | values
    paths = first.paths + tuple(path for header in others for path in header.paths)
    return Header(first.format, paths, values, tensors)


def _read_config(files: ModelFiles) -> dict[str, Value]:
    """The scalars of config.json and the first of its `architectures`."""
    path = files.folder / "config.json"
    if path not in files.paths:
        raise VerificationError(
            "model_invalid", f"{files.folder.name} has safetensors and no config.json."
        )
    config = read_document(path, SETTINGS_BYTES_MAX)
    values: dict[str, Value] = {
        f"config.{key}": value
        for key, value in config.items()
        if isinstance(value, str | int | float | bool)
    }
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        values["config.architecture"] = architectures[0]
    return values


def _check_index(files: ModelFiles, header: Header) -> None:
    """Where there is an index, every tensor must be in the file that it names."""
    path = files.folder / "model.safetensors.index.json"
    if path not in files.paths:
        return
    named = read_document(path, INDEX_BYTES_MAX).get("weight_map")
    held = {name: tensor.path.name for name, tensor in header.tensors.items()}
    listed = named if isinstance(named, dict) else {}
    wrong = [name for name in held.keys() | listed.keys() if held.get(name) != listed.get(name)]
    if wrong:
        raise VerificationError(
            "model_invalid",
            f"Index and files disagree about the tensor {min(wrong)!r}: a file is missing or was "
            "changed.",
        )
