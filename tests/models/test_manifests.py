"""Manifests: canonical, bounded, and of the same root that offers name."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.engines.base import ModelDescription, ModelFile
from hanse.engines.gguf_files import describe_file
from hanse.models.manifest import make_manifest, read_manifest, verify_files, verify_root
from hanse.protocol import merkle
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.manifests import (
    MANIFEST_BYTES_MAX,
    decode_manifest,
    encode_manifest,
    get_file_proof,
    get_manifest_root,
    is_file_name,
)
from hanse.protocol.signatures import to_bytes
from hanse.provider.offers import get_manifest_root as get_offered_root
from tests.models.tiny_models import write_tiny_folder


@pytest.fixture
def folder(tmp_path):
    return write_tiny_folder(tmp_path / "tiny")


def test_a_folders_manifest_is_read_back_as_it_was(folder, tmp_path):
    shares = []
    manifest, left_out = make_manifest(folder, progress=lambda _, share: shares.append(share))
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert manifest.architecture == "LlamaForCausalLM"
    assert (manifest.format, manifest.quantisation) == ("safetensors", "F32")
    assert manifest.licence == "apache-2.0"
    assert {file.name for file in manifest.files} == {path.name for path in folder.iterdir()}
    assert left_out == ()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_root_is_what_an_offer_names(folder):
    manifest, _ = make_manifest(folder)
    served = tuple(
        ModelFile(name=f.name, path="", size_bytes=f.size_bytes, sha256=f.sha256)
        for f in reversed(manifest.files)
    )
    description = ModelDescription(model="m", quantisation="F32", files=served)
    assert get_offered_root(description) == manifest.root


def test_a_file_that_an_engine_serves_has_the_root_of_its_import(folder, tmp_path):
    path = folder / "model.safetensors"
    served = describe_file(path, tmp_path)
    description = ModelDescription(model="m", quantisation="F32", files=(served,))
    assert get_offered_root(description) == make_manifest(path)[0].root


def test_one_file_is_proven_to_belong_to_the_root(folder):
    manifest, _ = make_manifest(folder)
    chosen = manifest.files[1]
    value = chosen.name.encode() + b"\0" + bytes.fromhex(chosen.sha256)
    proof = get_file_proof(manifest, chosen.name)
    merkle.verify_inclusion(value, proof, to_bytes(manifest.root))
    with pytest.raises(KeyError):
        get_file_proof(manifest, "absent.gguf")


def test_files_are_held_against_their_manifest(folder, tmp_path):
    manifest, _ = make_manifest(folder)
    verify_files(manifest, folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(VerificationError, match="hashes to"):
        verify_files(manifest, folder)
    weights.write_bytes(data[:-1])
    with pytest.raises(VerificationError, match=f"{len(data) - 1} bytes.*{len(data)}"):
        verify_files(manifest, folder)
    weights.unlink()
    with pytest.raises(VerificationError, match="missing"):
        verify_files(manifest, folder)


def test_a_root_from_an_offer_must_be_the_manifests(folder):
    manifest, _ = make_manifest(folder)
    verify_root(manifest, manifest.root)
    with pytest.raises(VerificationError, match="it should be 0x00"):
        verify_root(manifest, "0x" + "00" * 32)


def test_canonical_json_has_one_form(folder):
    manifest, _ = make_manifest(folder)
    data = encode_manifest(manifest)
    document = json.loads(data)
    assert data == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    shuffled = json.dumps(dict(reversed(document.items())), indent=2).encode()
    assert encode_manifest(decode_manifest(shuffled)) == data


@pytest.mark.parametrize(
    "change",
    [
        {"root": "0x" + "11" * 32},
        {"files": []},
        {"hanse_manifest": 2},
        {"weights": -1},
        {"weights": 1.5},
        {"licence": "x" * 513},
        {"source": "\x1b[2J"},
        {"derived_from": "0x12"},
        {"format": "pickle"},
        {"besides": 1},
        {"files": [{"name": "../../etc/passwd", "size_bytes": 1, "sha256": "00" * 32}]},
        {"files": [{"name": "a", "size_bytes": 2**60, "sha256": "00" * 32}]},
        {"files": [{"name": "a", "size_bytes": 1, "sha256": "xx"}]},
        {"files": [{"name": "a", "size_bytes": 1, "sha256": "00" * 32}] * 2},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_manifest_that_lies_is_refused(folder, change):
    manifest, _ = make_manifest(folder)
    document = json.loads(encode_manifest(manifest)) | change
    if "files" in change and "root" not in change:
        # so that the root is not what refuses it
        pairs = [(file["name"], file["sha256"]) for file in document["files"]]
        if all(len(sha256) == 64 for _, sha256 in pairs):
            document["root"] = get_manifest_root(pairs)
    with pytest.raises(VerificationError) as caught:
        decode_manifest(msgspec.json.encode(document))
    assert caught.value.code == "model_invalid"


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b"[" * 100_000, b" " * (MANIFEST_BYTES_MAX + 1)]
)
def test_what_is_no_manifest_is_refused(tmp_path, data):
    path = tmp_path / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(VerificationError):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(RequestError, match="cannot be read"):
        read_manifest(tmp_path / "absent.json")


@given(st.text(max_size=300))
def test_no_file_name_leads_anywhere(name):
    if is_file_name(name):
        assert name.isascii()
        assert not set(name) & set('/\\:*?"<>| \0\n')
        assert name[0] not in ".-"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".git", "con", "NUL.txt", "a.", "ä.gguf", "a" * 201]
)
def test_names_that_some_system_takes_otherwise(name):
    assert not is_file_name(name)
