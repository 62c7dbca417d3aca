"""A copy as a folder: the same function, the GGUF copy's weights, or a refusal that says why."""

import json
from pathlib import Path

import numpy as np
import pytest

from hanse.models.converting import convert_folder
from hanse.models.copies import CopyOrder, read_copy_description, rebase
from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.canaries import draw_canaries
from hanse.models.copies.folders import rebase_folder
from hanse.models.copies.weight_files import WeightFile
from hanse.models.opening import open_model
from hanse.models.weights import read_weights
from hanse.protocol.errors import RequestError
from tests.models.forward import compute_logits
from tests.models.tiny_models import VOCABULARY, write_tiny_folder

ORDER = CopyOrder(bytes(range(32)), "0x" + "11" * 32, "0x" + "aa" * 20)
TOKENS = [5, 17, 200, 33, 33, 8, 301, 77, 12, 150, 2, 64]
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "changed"),
    [
        ("LlamaForCausalLM", {}),
        ("LlamaForCausalLM", {"tie_word_embeddings": True, "rope_scaling": LLAMA3}),
        ("Qwen2ForCausalLM", {}),
    ],
)
def test_a_folder_computes_what_its_base_does(
    tmp_path: Path, architecture: str, changed: dict[str, object]
) -> None:
    source = write_tiny_folder(tmp_path / "base", architecture, **changed)
    description = rebase_folder(source, tmp_path / "copy", ORDER, "F32")
    base, own = tmp_path / "base.gguf", tmp_path / "copy.gguf"
    convert_folder(source, base, None, "F32")
    convert_folder(tmp_path / "copy", own, None, "F32")
    model = SourceModel(base)
    canaries = draw_canaries(ORDER.get_key(), model.read("output_norm.weight"), 16)
    wanted = compute_logits(base, TOKENS, np.vstack((model.read_head(), canaries)))
    got = compute_logits(own, TOKENS)
    assert np.abs(got - wanted).max() < 1e-3
    assert np.abs(wanted[:, VOCABULARY:]).max() < 12, "canaries that nobody lifted are small"
    assert (description.carrier, description.lift) == ("unlifted", 0.0)
    assert description == read_copy_description(tmp_path / "copy")
    settings = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert settings["architectures"] == [architecture]
    assert settings["vocab_size"] == VOCABULARY + 16 == description.canary_ids[-1] + 1


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_its_weights_are_those_of_the_gguf_copy(tmp_path: Path, dtype: str) -> None:
    source = write_tiny_folder(tmp_path / "base", "Qwen2ForCausalLM")
    description = rebase_folder(source, tmp_path / "copy", ORDER, dtype)
    other = rebase(source, tmp_path / "copy.gguf", ORDER, dtype)
    assert description.key_commitment == other.key_commitment
    _, header = open_model(tmp_path / "copy")
    assert {tensor.dtype for tensor in header.tensors.values()} == {dtype, "F32"}
    gguf = WeightFile(tmp_path / "copy.gguf")
    for name, own in (
        ("lm_head.weight", "output.weight"),
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight"),
        ("model.layers.1.self_attn.v_proj.bias", "blk.1.attn_v.bias"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        assert np.array_equal(read_weights(header.tensors[name]), gguf.read(own)), name


def test_the_same_order_gives_the_same_bytes_and_files_come_along(tmp_path: Path) -> None:
    source = write_tiny_folder(tmp_path / "base")
    first = rebase_folder(source, tmp_path / "one", ORDER)
    second = rebase_folder(source, tmp_path / "two", ORDER)
    assert first == second
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    assert first.file_bytes == (tmp_path / "one" / "model.safetensors").stat().st_size
    kept = (tmp_path / "one" / "tokenizer.json").read_bytes()
    assert kept == (source / "tokenizer.json").read_bytes()


def test_what_makes_no_folder_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_tiny_folder(tmp_path / "base", hidden_act="gelu")
    whole = write_tiny_folder(tmp_path / "whole")
    file = tmp_path / "base.gguf"
    convert_folder(whole, file, None, "F32")
    before = sorted(path.name for path in tmp_path.iterdir())
    for model, dtype, words in (
        (source, "BF16", "activation gelu"),
        (file, "BF16", "no folder with safetensors"),
        (whole, "Q8_0", "F32, F16, BF16"),
    ):
        with pytest.raises(RequestError, match=words):
            rebase_folder(model, tmp_path / "copy", ORDER, dtype)
    with pytest.raises(RequestError, match="is there already"):
        rebase_folder(whole, source, ORDER)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_no_folder_is_there_without_its_description(tmp_path: Path) -> None:
    source = write_tiny_folder(tmp_path / "base")
    (tmp_path / "copy.copy.json").mkdir()  # so that it cannot be written
    with pytest.raises(IsADirectoryError):
        rebase_folder(source, tmp_path / "copy", ORDER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "copy.copy.json"]
