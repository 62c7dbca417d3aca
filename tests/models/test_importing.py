"""Folders and safetensors from strangers: what does not belong into a model is refused by name."""

import contextlib
import json
import os

import numpy as np
import pytest

from hanse.models.inspecting import describe
from hanse.models.manifest import find_licence, find_template, make_manifest
from hanse.models.model_files import list_model_files
from hanse.models.opening import open_model
from hanse.models.safetensors_header import read_safetensors_header
from hanse.models.weights import read_weights
from hanse.protocol.errors import RequestError, VerificationError
from tests.models.tiny_models import (
    make_config,
    make_weights,
    write_folder,
    write_safetensors,
    write_tiny_folder,
)


@pytest.fixture
def folder(tmp_path):
    return write_tiny_folder(tmp_path / "tiny")


def test_a_folder_is_described(folder):
    files, header = open_model(folder)
    found = describe(header, find_licence(header, folder), find_template(files))
    assert found.architecture == "LlamaForCausalLM"
    assert found.shape["width"] == 64
    assert found.vocabulary == 320
    assert found.chat_template == "{{ messages }}"
    assert found.licence == "apache-2.0"
    assert found.bits_per_weight_x100 == 3200
    assert not found.is_head_tied


def test_safetensors_are_read_as_their_own_package_reads_them(tmp_path):
    from safetensors.numpy import load_file

    path = tmp_path / "model.safetensors"
    written = make_weights(make_config())
    write_safetensors(path, written)
    theirs = load_file(path)
    header = read_safetensors_header(path)
    assert header.tensors.keys() == theirs.keys()
    for name, tensor in header.tensors.items():
        np.testing.assert_array_equal(read_weights(tensor), theirs[name])


def test_no_flipped_byte_of_the_header_does_more_than_refuse(tmp_path):
    path = tmp_path / "m.safetensors"
    write_safetensors(path, {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)})
    good = path.read_bytes()
    for place in range(len(good) - 32):
        for flip in (0x01, 0x04, 0x80):
            data = bytearray(good)
            data[place] ^= flip
            path.write_bytes(data)
            with contextlib.suppress(VerificationError):
                read_safetensors_header(path)


def test_bfloat16_is_widened_exactly(tmp_path):
    values = np.array([1.5, -2.0, 3.1415927, 1e30], dtype=np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    write_safetensors(tmp_path / "m.safetensors", {"a": upper})
    tensor = read_safetensors_header(tmp_path / "m.safetensors").tensors["a"]
    np.testing.assert_array_equal(
        read_weights(tensor), (upper.astype(np.uint32) << 16).view(np.float32)
    )


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "weights.PTH", "a.ckpt", "b.pkl", "c.npz", "modeling.py"],
)
def test_what_runs_code_is_refused_by_name(folder, name):
    (folder / name).write_bytes(b"harmless")
    with pytest.raises(VerificationError, match=name) as caught:
        make_manifest(folder)
    assert caught.value.code == "model_invalid"
    with pytest.raises(VerificationError, match=name):
        make_manifest(folder / name)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    os.symlink(secret, folder / "generation_config.json")
    with pytest.raises(VerificationError, match="link out of the folder"):
        make_manifest(folder)


def test_a_link_within_the_folder_is_taken(folder):
    os.symlink(folder / "README.md", folder / "LICENSE")
    assert "LICENSE" in {file.name for file in make_manifest(folder)[0].files}


def test_what_is_no_part_of_a_model_is_left_out_and_named(folder):
    (folder / ".gitattributes").write_text("x")
    (folder / "original").mkdir()
    (folder / "picture.png").write_bytes(b"x")
    manifest, left_out = make_manifest(folder)
    assert left_out == (".gitattributes", "original", "picture.png")
    assert not {file.name for file in manifest.files} & set(left_out)


def test_a_name_that_no_manifest_takes_is_refused(folder):
    (folder / "a b.json").write_text("{}")
    with pytest.raises(VerificationError, match="no name"):
        make_manifest(folder)


def test_nothing_and_something_else_are_told_apart(tmp_path):
    with pytest.raises(RequestError, match="no model at"):
        list_model_files(tmp_path / "absent")
    (tmp_path / "words.csv").write_text("x")
    with pytest.raises(VerificationError, match="neither"):
        list_model_files(tmp_path / "words.csv")
    (tmp_path / "words.csv").unlink()
    with pytest.raises(VerificationError, match="no weights"):
        open_model(tmp_path)


def test_all_parts_of_a_split_file_are_needed(tmp_path):
    part = tmp_path / "m-00001-of-00002.gguf"
    part.write_bytes(b"x")
    with pytest.raises(VerificationError, match="first m-00002-of-00002"):
        list_model_files(part)
    part.with_name("m-00002-of-00002.gguf").write_bytes(b"x")
    assert len(list_model_files(part).paths) == 2


def test_an_index_that_names_another_file_is_refused(folder):
    header = open_model(folder)[1]
    named = dict.fromkeys(header.tensors, "model.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": named}))
    make_manifest(folder)
    index.write_text(json.dumps({"weight_map": named | {"lm_head.weight": "part2.safetensors"}}))
    with pytest.raises(VerificationError, match="lm_head"):
        make_manifest(folder)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    config = make_config()
    folder = write_folder(tmp_path / "tiny", config, make_weights(config))
    write_safetensors(folder / "more.safetensors", {"lm_head.weight": np.zeros(4, np.float32)})
    with pytest.raises(VerificationError, match="in two files"):
        open_model(folder)


def spoil(header: object, data: bytes = b"\0" * 16) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "header of 0", id="empty"),
        pytest.param(
            (2**63).to_bytes(8, "little") + b"{}", "claims a header", id="header's length"
        ),
        pytest.param(spoil(b"{" * 70_000 + b'"'), "nested", id="depth"),
        pytest.param(spoil(b"[1]"), "no JSON object", id="no object"),
        pytest.param(spoil({"a": ENTRY | {"dtype": "PICKLE"}}), "unknown type", id="type"),
        pytest.param(spoil({"a": ENTRY | {"shape": [-4]}}), "shape", id="negative"),
        pytest.param(spoil({"a": ENTRY | {"shape": [5]}}), "20", id="shape and bytes"),
        pytest.param(spoil({"a": ENTRY | {"data_offsets": [1600, 1616]}}), "cut off", id="outside"),
        pytest.param(
            spoil({"a": ENTRY | {"data_offsets": [-16, 0]}}), "the file at", id="before its data"
        ),
        pytest.param(spoil({"a": ENTRY, "b": ENTRY}), "share bytes", id="one upon another"),
        pytest.param(spoil({"a": ENTRY}, b"\0" * 15), "cut off", id="cut off"),
        pytest.param(spoil({"a": ENTRY}, b"\0" * 17), "does not name", id="more than named"),
        pytest.param(spoil({"a": ENTRY | {"code": "x"}}), "code", id="unknown field"),
        pytest.param(spoil({"__metadata__": {"a": 1}, "b": ENTRY}), "__metadata__", id="metadata"),
    ],
)
def test_a_safetensors_file_that_lies_is_refused(tmp_path, data, reason):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(VerificationError, match=reason) as caught:
        read_safetensors_header(path)
    assert caught.value.code == "model_invalid"
