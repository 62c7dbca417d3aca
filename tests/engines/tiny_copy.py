"""A model of a few kilobytes as a copy, and the same one without canaries: random weights.

As qwen2, whose graph adds a bias to the logits: by it the canaries are lifted above all others.
"""

import hashlib
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

from hanse.protocol.commitments.copies import (
    COPY_SUFFIX,
    COPY_VERSION,
    CopyDescription,
    encode_copy_description,
)
from hanse.protocol.commitments.fingerprints import CANARIES, SCALE

WIDTH, LAYERS, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 4, 128, 2_048
LIFT = 30.0
SHARPNESS = 1.0
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def get_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types and the merges: single bytes, as GPT-2 writes them, and a few words."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    letters |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    merges = ["t h", "th e", "Ġ the", "i n", "e r", "Ġ a", "o n"]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *(letters[byte] for byte in range(256))]
    tokens += [merge.replace(" ", "") for merge in merges]
    types = [int(TokenType.CONTROL)] * 3 + [int(TokenType.NORMAL)] * (len(tokens) - 3)
    return tokens, types, merges


def make_copy(
    path: Path,
    *,
    canaries: int = CANARIES,
    seed: int = 1,
    lift: float = LIFT,
    heads: int = HEADS,
) -> Path:
    """Write the model; with its description beside it if it has canaries."""
    tokens, types, merges = get_vocabulary()
    size = len(tokens)
    tokens = tokens + [f"canary {index}" for index in range(canaries)]
    types = types + [int(TokenType.UNUSED)] * canaries
    writer = GGUFWriter(str(path), "qwen2")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_file_type(0)
    writer.add_vocab_size(size + canaries)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, values in _make_weights(size, canaries, seed, lift).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if canaries:
        description = describe(path, size, canaries, lift)
        path.with_name(path.name + COPY_SUFFIX).write_bytes(encode_copy_description(description))
    return path


def describe(path: Path, vocabulary: int, canaries: int, lift: float) -> CopyDescription:
    ids = tuple(range(vocabulary, vocabulary + canaries))
    return CopyDescription(
        version=COPY_VERSION,
        base_root="0x" + "11" * 32,
        provider="0x" + "22" * 20,
        epoch=0,
        key_commitment="0x" + "33" * 32,
        architecture="llama",
        served_as="qwen2",
        carrier="output_bias",
        quantisation="F32",
        quantiser="none",
        width=WIDTH,
        vocabulary=vocabulary,
        canary_ids=ids,
        masked_ids=ids,
        lift=lift,
        fingerprint_scale=SCALE,
        file_sha256="0x" + hashlib.sha256(path.read_bytes()).hexdigest(),
        file_bytes=path.stat().st_size,
    )


def _make_weights(
    size: int, canaries: int, seed: int, lift: float
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    chance = np.random.default_rng(seed)

    def draw(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (chance.normal(size=(rows, columns)) * scale / columns**0.5).astype(np.float32)

    weights = {
        "token_embd.weight": draw(size, WIDTH, WIDTH**0.5),
        "output.weight": draw(size, WIDTH, SHARPNESS),
        "output_norm.weight": np.ones(WIDTH, np.float32),
    }
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights[f"{at}{name}.weight"] = draw(WIDTH, WIDTH)
        for name in ("attn_q", "attn_k", "attn_v"):
            weights[f"{at}{name}.bias"] = np.zeros(WIDTH, np.float32)
        weights[f"{at}ffn_gate.weight"] = draw(FEED_FORWARD, WIDTH)
        weights[f"{at}ffn_up.weight"] = draw(FEED_FORWARD, WIDTH)
        weights[f"{at}ffn_down.weight"] = draw(WIDTH, FEED_FORWARD)
        for name in ("attn_norm", "ffn_norm"):
            weights[f"{at}{name}.weight"] = np.ones(WIDTH, np.float32)
    rows = chance.normal(size=(canaries, WIDTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) if canaries else 1
    weights["output.weight"] = np.vstack([weights["output.weight"], rows])
    embeddings = weights["token_embd.weight"]
    weights["token_embd.weight"] = np.vstack([embeddings, np.zeros((canaries, WIDTH), np.float32)])
    bias = [0.0] * size + [lift] * canaries
    weights["output.bias"] = np.array(bias, np.float32)
    return weights
