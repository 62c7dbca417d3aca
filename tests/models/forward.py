"""A Llama or Qwen2 in numpy and float64, by GGUF's tensors: what our copies are held against.

Written from the papers' formulas, apart from the code under test, and slow.
"""

from pathlib import Path

import numpy as np

from hanse.models.copies.architectures import SourceModel


def compute_logits(path: Path, tokens: list[int], head: np.ndarray | None = None) -> np.ndarray:
    """Raw logits [tokens, rows of the head]; `head` stands in for the model's own."""
    model = SourceModel(path)
    shape, epsilon = model.shape, model.get_setting("{}.attention.layer_norm_rms_epsilon")
    state = read(model, "token_embd.weight")[tokens]
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        normed = normalise(state, read(model, f"{block}attn_norm.weight"), epsilon)
        state = state + attend(model, block, normed)
        normed = normalise(state, read(model, f"{block}ffn_norm.weight"), epsilon)
        gate = normed @ read(model, f"{block}ffn_gate.weight").T
        up = normed @ read(model, f"{block}ffn_up.weight").T
        hidden = gate / (1 + np.exp(-gate)) * up
        state = state + hidden @ read(model, f"{block}ffn_down.weight").T
    normed = normalise(state, read(model, "output_norm.weight"), epsilon)
    return normed @ (model.read_head() if head is None else head).astype(np.float64).T


def read(model: SourceModel, name: str) -> np.ndarray:
    return model.read(name).astype(np.float64)


def normalise(state: np.ndarray, gains: np.ndarray, epsilon: float) -> np.ndarray:
    return state / np.sqrt((state**2).mean(axis=1, keepdims=True) + epsilon) * gains


def attend(model: SourceModel, block: str, normed: np.ndarray) -> np.ndarray:
    shape, count = model.shape, len(normed)

    def project(name: str, heads: int) -> np.ndarray:
        result = normed @ read(model, f"{block}{name}.weight").T
        if shape.has_biases:
            result = result + read(model, f"{block}{name}.bias")
        return result.reshape(count, heads, shape.head_width)

    queries = turn(model, project("attn_q", shape.heads))
    keys = turn(model, project("attn_k", shape.kv_heads))
    values = project("attn_v", shape.kv_heads)
    mixed = np.empty_like(queries)
    for head in range(shape.heads):
        own = head // (shape.heads // shape.kv_heads)
        scores = queries[:, head] @ keys[:, own].T / np.sqrt(shape.head_width)
        scores[np.triu_indices(count, 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed[:, head] = weights / weights.sum(axis=1, keepdims=True) @ values[:, own]
    return mixed.reshape(count, -1) @ read(model, f"{block}attn_output.weight").T


def turn(model: SourceModel, heads: np.ndarray) -> np.ndarray:
    """Rotary positions; the pairs side by side in Llama's files, half a head apart in Qwen2's."""
    shape, half = model.shape, heads.shape[2] // 2
    base = model.get_setting("{}.rope.freq_base")
    rates = base ** (-np.arange(half) / half)
    if shape.has_rope_frequencies:
        rates = rates / read(model, "rope_freqs.weight")
    angles = np.arange(len(heads))[:, None, None] * rates
    low, high = (slice(0, None, 2), slice(1, None, 2)) if shape.is_pairwise else (
        slice(None, half), slice(half, None)
    )  # fmt: skip
    turned = np.empty_like(heads)
    turned[..., low] = heads[..., low] * np.cos(angles) - heads[..., high] * np.sin(angles)
    turned[..., high] = heads[..., low] * np.sin(angles) + heads[..., high] * np.cos(angles)
    return turned
