"""Models small enough for every test: a Hugging Face folder with random weights and its tokenizer.

The folder is written with numpy and json alone, so that the tests of our readers and converter do
not rest on them.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, FEED_FORWARD, HEADS, KV_HEADS, LAYERS = 64, 96, 4, 2, 2
VOCABULARY = 320


def make_tokenizer(
    text: str = "the harbour of the old town, and the salt in it; 12 barrels",
) -> Any:
    """A byte-level BPE, trained on a few words, that splits as GPT-2 does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 8, trainer)
    return tokenizer


def make_config(architecture: str = "LlamaForCausalLM", **changed: Any) -> dict[str, Any]:
    """config.json of the tiny model."""
    return {
        "architectures": [architecture],
        "model_type": "qwen2" if architecture.startswith("Qwen2") else "llama",
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 1,
        **changed,
    }


def make_weights(config: dict[str, Any], seed: int = 1) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names."""
    chance = np.random.default_rng(seed)
    width, keys = config["hidden_size"], config["hidden_size"] * KV_HEADS // HEADS
    forward = config["intermediate_size"]

    def draw(*shape: int) -> np.ndarray:
        scale = 1 / math.sqrt(shape[-1])
        return (chance.standard_normal(shape) * scale).astype(np.float32)

    def gains() -> np.ndarray:
        return (1 + 0.2 * chance.standard_normal(width)).astype(np.float32)

    weights = {"model.embed_tokens.weight": draw(config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        below = f"model.layers.{layer}."
        weights |= {
            f"{below}input_layernorm.weight": gains(),
            f"{below}self_attn.q_proj.weight": 3 * draw(width, width),
            f"{below}self_attn.k_proj.weight": 3 * draw(keys, width),
            f"{below}self_attn.v_proj.weight": draw(keys, width),
            f"{below}self_attn.o_proj.weight": draw(width, width),
            f"{below}post_attention_layernorm.weight": gains(),
            f"{below}mlp.gate_proj.weight": draw(forward, width),
            f"{below}mlp.up_proj.weight": draw(forward, width),
            f"{below}mlp.down_proj.weight": draw(width, forward),
        }
        if config["model_type"] == "qwen2":
            for name, size in (("q", width), ("k", keys), ("v", keys)):
                weights[f"{below}self_attn.{name}_proj.bias"] = draw(size)
    weights["model.norm.weight"] = gains()
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = 3 * draw(config["vocab_size"], width)
    return weights


def write_safetensors(path: Path, weights: dict[str, np.ndarray]) -> None:
    """One file, as the format's description has it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, values in weights.items():
        kind = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[values.dtype.name]
        end = at + values.nbytes
        header[name] = {"dtype": kind, "shape": values.shape, "data_offsets": (at, end)}
        at = end
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    data = b"".join(values.tobytes() for values in weights.values())
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def write_folder(folder: Path, config: dict[str, Any], weights: dict[str, np.ndarray]) -> Path:
    """A whole model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA tiny model.\n")
    write_safetensors(folder / "model.safetensors", weights)
    return folder


def write_tiny_folder(folder: Path, architecture: str = "LlamaForCausalLM", **changed: Any) -> Path:
    """A whole model folder with random weights."""
    config = make_config(architecture, **changed)
    return write_folder(folder, config, make_weights(config))
