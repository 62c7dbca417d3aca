"""Safetensors to GGUF: llama.cpp gives torch's logits, or the model is refused with the reason."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.models.converting import convert_folder
from hanse.models.gguf_header import read_gguf_header
from hanse.models.quantising.scoring import LlamaRun
from hanse.protocol.errors import HanseError, RequestError, VerificationError
from tests.models.tiny_models import (
    make_config,
    make_weights,
    write_folder,
    write_safetensors,
    write_tiny_folder,
)

TOKENS = [int(token) for token in np.random.default_rng(7).integers(2, 318, 120)]
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def get_torch_logits(folder: Path) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return np.asarray(model(torch.tensor([TOKENS])).logits[0].numpy())


def get_llama_logits(path: Path) -> np.ndarray:
    with LlamaRun(path, 1, is_exact=True) as run:
        run.read(TOKENS)
        return np.stack([run.get_logits(place) for place in range(len(TOKENS))])


@pytest.mark.parametrize(
    ("architecture", "changed"),
    [
        pytest.param("LlamaForCausalLM", {}, id="llama"),
        pytest.param("LlamaForCausalLM", {"tie_word_embeddings": True}, id="llama, tied"),
        pytest.param("LlamaForCausalLM", {"rope_scaling": LLAMA3}, id="llama 3 positions"),
        pytest.param(
            "MistralForCausalLM", {"sliding_window": None, "model_type": "mistral"}, id="mistral"
        ),
        pytest.param("Qwen2ForCausalLM", {}, id="qwen2, biases"),
        pytest.param("Qwen2ForCausalLM", {"tie_word_embeddings": True}, id="qwen2, tied"),
    ],
)
def test_llama_cpp_computes_what_torch_does(tmp_path, architecture, changed):
    folder = write_tiny_folder(tmp_path / "tiny", architecture, **changed)
    convert_folder(folder, tmp_path / "tiny.gguf", dtype="F32")
    expected = get_torch_logits(folder)
    assert np.abs(get_llama_logits(tmp_path / "tiny.gguf") - expected).max() < 1e-3
    assert expected.std() > 0.5


def test_f16_keeps_vectors_whole_and_says_what_it_is(tmp_path):
    folder = write_tiny_folder(tmp_path / "tiny")
    convert_folder(folder, tmp_path / "tiny.gguf")
    header = read_gguf_header(tmp_path / "tiny.gguf")
    assert header.tensors["blk.0.attn_q.weight"].dtype == "F16"
    assert header.tensors["blk.0.attn_norm.weight"].dtype == "F32"
    assert header.find_int("general.file_type") == 1
    assert header.find_text("general.license") == "apache-2.0"
    assert header.find_text("tokenizer.chat_template") == "{{ messages }}"
    assert header.find_int("tokenizer.ggml.eos_token_id") == 1


def refused(folder: Path, kind: type[HanseError] = RequestError) -> str:
    target = folder.parent / "refused.gguf"
    with pytest.raises(kind) as caught:
        convert_folder(folder, target)
    assert caught.value.code == ("model_unsupported" if kind is RequestError else "model_invalid")
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    return caught.value.message


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM"),
        ({"architectures": ["Qwen2MoeForCausalLM"]}, "Qwen2MoeForCausalLM"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"mlp_bias": True}, "feed-forward"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_by_name(tmp_path, changed, reason):
    folder = write_tiny_folder(tmp_path / "tiny", **changed)
    assert reason in refused(folder)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"num_hidden_layers": 3}, "no tensor for blk.2"),
        ({"intermediate_size": 128}, "config.json says"),
        ({"hidden_size": 10**9}, "hidden_size is"),
        ({"num_key_value_heads": 3}, "3 of them for keys"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_weights_are_refused(tmp_path, changed, reason):
    folder = write_tiny_folder(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    assert reason in refused(folder, VerificationError)


def test_a_tensor_that_nothing_knows_is_never_left_out(tmp_path):
    config = make_config()
    weights = make_weights(config)
    weights["model.layers.0.self_attn.q_norm.weight"] = np.ones(16, np.float32)
    assert "q_norm" in refused(write_folder(tmp_path / "tiny", config, weights))


def test_a_weight_that_f16_cannot_hold_is_refused(tmp_path):
    config = make_config()
    weights = make_weights(config)
    weights["lm_head.weight"][0, 0] = 1e6
    assert "1000000.0, which F16 cannot" in refused(
        write_folder(tmp_path / "tiny", config, weights)
    )


def change_tokenizer(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits text"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "WordPiece"),
    ],
    ids=str,
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(tmp_path, change, reason):
    folder = write_tiny_folder(tmp_path / "tiny")
    change_tokenizer(folder, change)
    assert reason in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": []},
        {"model": {"type": "BPE", "vocab": [1]}},
        {"model": {"type": "BPE", "vocab": {"a": "b"}}},
        {"model": {"type": "BPE", "vocab": {"a": 10**9}}},
        {"added_tokens": ["x"]},
        {"added_tokens": [{"id": -1, "content": "x"}]},
        {"normalizer": "NFC"},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [1]}},
    ],
    ids=str,
)
def test_a_tokenizer_of_another_form_is_refused(tmp_path, change):
    folder = write_tiny_folder(tmp_path / "tiny")
    change_tokenizer(folder, change)
    refused(folder, VerificationError)


def test_a_tokenizer_that_llama_cpp_reads_otherwise_is_refused(tmp_path):
    """By trial: it splits as SmolLM does, but for a space in front, which llama.cpp leaves out."""
    folder = write_tiny_folder(tmp_path / "tiny")
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    change_tokenizer(
        folder, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]}}
    )
    assert "would read text otherwise" in refused(folder)


def test_without_a_tokenizer_there_is_no_conversion(tmp_path):
    folder = write_tiny_folder(tmp_path / "tiny")
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", make_weights(make_config()))
    assert "no config.json" in refused(folder, VerificationError)
