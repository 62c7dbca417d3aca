"""The exact symmetries of the Llama family, drawn from a copy's key and applied to its weights.

What a copy changes, and why nothing of it can be seen in the logits:

| part | change | undone by |
| --- | --- | --- |
| RMSNorm gains | partly folded into the matrices that read the normed stream | same function |
| residual stream | an orthogonal Q: readers W Q, writers Q^T W | RMSNorm passes it: `StreamBasis` |
| rotary pairs of queries, keys | a turn of each pair of each KV head | turns of a plane commute |
| values, attention output | an orthogonal matrix for each KV head | its transpose in the output |
| KV heads, heads of a group | permuted | permuted in the output |
| feed-forward | permuted; up times signs | the same in the down matrix |

Only orthogonal changes: random scales would cost quality at 4 bits (measured; verification.md). All
steps are elementwise float32 (`rotations`), so a copy is the same on every machine.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.models.copies.architectures import Shape, SourceModel
from hanse.models.copies.keys import KeyStream
from hanse.models.copies.rotations import Rotation, draw_rotation
from hanse.models.copies.stream_basis import StreamBasis

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class LayerSymmetry:
    """One layer's part of a copy's key.

    Attributes:
        pair_cosines, pair_sines: a turn for each rotary pair of each KV head [KV, pairs].
        values: a rotation of each KV head's values.
        kv_order: which KV head comes first, second ... in the copy.
        head_orders: the order of the query heads in each group of the base [KV, group].
        hidden_order, hidden_signs: of the feed-forward's hidden units.
    """

    pair_cosines: "NDArray[np.float32]"
    pair_sines: "NDArray[np.float32]"
    values: tuple[Rotation, ...]
    kv_order: "NDArray[np.int64]"
    head_orders: "NDArray[np.int64]"
    hidden_order: "NDArray[np.int64]"
    hidden_signs: "NDArray[np.float32]"


def draw_layer(copy_key: bytes, shape: Shape, layer: int) -> LayerSymmetry:
    """The symmetries of one layer; every layer has a stream of its own."""
    import numpy as np

    stream = KeyStream(copy_key, f"layer {layer}")
    pairs = shape.head_width // 2
    cosine, sine = stream.draw_turns(shape.kv_heads * pairs)
    values = tuple(draw_rotation(stream, shape.head_width) for _ in range(shape.kv_heads))
    group = shape.heads // shape.kv_heads
    return LayerSymmetry(
        pair_cosines=cosine.reshape(shape.kv_heads, pairs),
        pair_sines=sine.reshape(shape.kv_heads, pairs),
        values=values,
        kv_order=stream.draw_permutation(shape.kv_heads),
        head_orders=np.stack([stream.draw_permutation(group) for _ in range(shape.kv_heads)]),
        hidden_order=stream.draw_permutation(shape.feed_forward),
        hidden_signs=stream.draw_signs(shape.feed_forward),
    )


def fold_layer(source: SourceModel, layer: int, basis: StreamBasis, served: Shape) -> "Weights":
    """A layer's tensors still in the base's basis, as the copy's norms need them.

    Keys are the names without `blk.<n>.`. The norms are the copy's already; what they lost is in
    the matrices. Rotary pairs lie half a head apart, and spare heads of the served shape are there.
    """

    def read(name: str) -> "NDArray[np.float32]":
        return source.read(f"blk.{layer}.{name}")

    shape = source.shape
    gains = {name: read(f"{name}.weight") for name in ("attn_norm", "ffn_norm")}
    attention, feed_forward = (basis.get_ratios(own) for own in gains.values())
    weights: Weights = {
        "attn_q.weight": split_pairs(read("attn_q.weight"), shape) * attention,
        "attn_k.weight": split_pairs(read("attn_k.weight"), shape) * attention,
        "attn_v.weight": read("attn_v.weight") * attention,
        "attn_output.weight": read("attn_output.weight"),
        "ffn_gate.weight": read("ffn_gate.weight") * feed_forward,
        "ffn_up.weight": read("ffn_up.weight") * feed_forward,
        "ffn_down.weight": read("ffn_down.weight"),
    }
    if shape.has_biases:
        weights["attn_q.bias"] = split_pairs(read("attn_q.bias"), shape)
        weights["attn_k.bias"] = split_pairs(read("attn_k.bias"), shape)
        weights["attn_v.bias"] = read("attn_v.bias")
    weights = {name: pad_heads(name, values, shape, served) for name, values in weights.items()}
    return weights | {f"{name}.weight": basis.get_gains(own) for name, own in gains.items()}


def rebase_layer(
    weights: "Weights", symmetry: LayerSymmetry, basis: StreamBasis, shape: Shape
) -> "Weights":
    """A folded layer in the copy's basis."""
    result: Weights = {}
    for name, values in weights.items():
        kind, _, part = name.partition(".")
        if kind in ("attn_norm", "ffn_norm"):
            result[name] = values
        elif kind in ("attn_output", "ffn_down"):  # writes to the stream
            inner = _rebase_inner(kind, values, symmetry, shape)
            result[name] = basis.apply(inner.T).T
        else:
            turned = basis.apply(values) if part == "weight" else values[:, None]
            inner = _rebase_inner(kind, turned, symmetry, shape)
            result[name] = inner if part == "weight" else inner[:, 0]
    return result


def split_pairs(rows: "NDArray[np.float32]", shape: Shape) -> "NDArray[np.float32]":
    """Rows of queries or keys with each pair's halves half a head apart (ggml's NEOX layout).

    Llama's files keep the two side by side; Qwen2's have them apart already.
    """
    if not shape.is_pairwise:
        return rows
    parts = rows.reshape(-1, shape.head_width // 2, 2, *rows.shape[1:])
    return parts.swapaxes(1, 2).reshape(rows.shape)


def pad_heads(
    name: str, values: "NDArray[np.float32]", shape: Shape, served: Shape
) -> "NDArray[np.float32]":
    """Queries or attention output with the served shape's spare heads: zeros behind each group."""
    import numpy as np

    if served.heads == shape.heads or not name.startswith(("attn_q", "attn_output")):
        return values
    axis = 1 if name.startswith("attn_output") else 0
    rows = np.moveaxis(values, axis, 0).reshape(
        shape.kv_heads, -1, shape.head_width, *np.delete(values.shape, axis)
    )
    spare = (served.heads - shape.heads) // shape.kv_heads
    blank = np.zeros((shape.kv_heads, spare, *rows.shape[2:]), dtype=np.float32)
    whole = np.concatenate((rows, blank), axis=1)
    return np.moveaxis(whole.reshape(-1, *whole.shape[3:]), 0, axis)


def join_pairs(rows: "NDArray[np.float32]", shape: Shape) -> "NDArray[np.float32]":
    """Undo `split_pairs`, for a copy that is served by Llama's graph."""
    parts = rows.reshape(-1, 2, shape.head_width // 2, *rows.shape[1:])
    return parts.swapaxes(1, 2).reshape(rows.shape)


def _rebase_inner(
    kind: str, values: "NDArray[np.float32]", symmetry: LayerSymmetry, shape: Shape
) -> "NDArray[np.float32]":
    """The side of a matrix that does not face the stream."""
    if kind in ("attn_q", "attn_k"):
        return _turn_pairs(values, symmetry, shape)
    if kind == "attn_v":
        return _turn_values(values, symmetry, shape)
    if kind == "attn_output":
        return _turn_output(values, symmetry, shape)
    if kind == "ffn_gate":
        return values[symmetry.hidden_order]
    if kind == "ffn_up":
        return values[symmetry.hidden_order] * symmetry.hidden_signs[:, None]
    return values[:, symmetry.hidden_order] * symmetry.hidden_signs


def _turn_pairs(
    rows: "NDArray[np.float32]", symmetry: LayerSymmetry, shape: Shape
) -> "NDArray[np.float32]":
    """Queries or keys: each rotary pair turned, heads in the copy's order."""
    import numpy as np

    pairs = shape.head_width // 2
    heads = rows.reshape(shape.kv_heads, -1, 2, pairs, rows.shape[1])  # KV, group, half, pair
    low, high = heads[:, :, 0], heads[:, :, 1]
    cosine = symmetry.pair_cosines[:, None, :, None]
    sine = symmetry.pair_sines[:, None, :, None]
    turned = np.stack((low * cosine - high * sine, low * sine + high * cosine), axis=2)
    return _order_heads(turned, symmetry).reshape(rows.shape)


def _turn_values(
    rows: "NDArray[np.float32]", symmetry: LayerSymmetry, shape: Shape
) -> "NDArray[np.float32]":
    import numpy as np

    heads = rows.reshape(shape.kv_heads, shape.head_width, rows.shape[1])
    turned = [
        rotation.apply(head.T).T for rotation, head in zip(symmetry.values, heads, strict=True)
    ]
    return np.stack([turned[index] for index in symmetry.kv_order]).reshape(rows.shape)


def _turn_output(
    columns: "NDArray[np.float32]", symmetry: LayerSymmetry, shape: Shape
) -> "NDArray[np.float32]":
    import numpy as np

    width = columns.shape[0]
    heads = columns.reshape(width, shape.kv_heads, -1, shape.head_width).transpose(1, 2, 0, 3)
    turned = [
        rotation.apply(group.reshape(-1, shape.head_width)).reshape(group.shape)
        for rotation, group in zip(symmetry.values, heads, strict=True)
    ]
    ordered = _order_heads(np.stack(turned), symmetry)
    return ordered.transpose(2, 0, 1, 3).reshape(columns.shape)


def _order_heads(heads: "NDArray[np.float32]", symmetry: LayerSymmetry) -> "NDArray[np.float32]":
    """KV heads, and the query heads of each, in the copy's order; keys have one of each group."""
    import numpy as np

    if heads.shape[1] == 1:
        return heads[symmetry.kv_order]
    inner = [group[order] for group, order in zip(heads, symmetry.head_orders, strict=True)]
    return np.stack([inner[index] for index in symmetry.kv_order])
