"""Which graph of llama.cpp serves a copy, so that its canaries can be lifted, and its tensors.

A lift is a bias of the logits, which Llama's own graph does not have. Two others have it and
compute the same function, for a stream that is as wide as all heads together:

| graph | has besides Llama's | takes |
| --- | --- | --- |
| `qwen2` | biases of queries, keys and values, if a model has them | plain rotary positions |
| `phimoe` | more biases: zero; one expert, always chosen with weight 1 | rotary factors |

Both turn the two halves of a head (`split_pairs`). Where all heads are narrower than the stream
(Mistral Nemo and Small: 32 of 128 in 5,120) each group of heads gets spare ones, whose queries and
outputs are zero. Heads that are wider than the stream have no such way: these copies keep Llama's
graph, their canaries are not lifted, and a server sells them without a proof.
"""

from dataclasses import dataclass, replace

from hanse.models.copies.architectures import ROPE_FREQUENCIES, Shape

OUTPUT_BIAS = "output_bias"
"""Carrier: lifted by the head's bias; a plain `top_logprobs` brings the canaries."""

UNLIFTED = "unlifted"
"""Carrier: no lift; the runtime has to read the canaries' logits itself, through a binding."""

ROPE_FACTORS = ("rope_factors_long.weight", "rope_factors_short.weight")
"""Phi's names for long and for short contexts; ours are the same for both."""

EXPERTS = {name: f"{name}_exps" for name in ("ffn_gate", "ffn_up", "ffn_down")}
"""Feed-forward matrices, and what they are called where there are experts."""


@dataclass(frozen=True)
class Graph:
    """How a copy is served.

    Attributes:
        name: the architecture that its file names.
        carrier: OUTPUT_BIAS or UNLIFTED.
        reason: why the canaries are not lifted, in words; empty if they are.
    """

    name: str
    carrier: str
    reason: str = ""

    @property
    def is_lifted(self) -> bool:
        """Whether the canaries have a lift."""
        return self.carrier == OUTPUT_BIAS

    @property
    def settings(self) -> dict[str, int]:
        """What its file says besides the base's, under the graph's name."""
        return {"expert_count": 1, "expert_used_count": 1} if self.name == "phimoe" else {}


def add_spare_heads(shape: Shape) -> Shape:
    """The shape in which a copy is served: with spare heads where they make heads and stream even.

    Each group, the query heads of one KV head, gets as many.
    """
    group, left = shape.kv_heads * shape.head_width, shape.width - shape.heads * shape.head_width
    if left <= 0 or left % group:
        return shape
    return replace(shape, heads=shape.heads + left // group * shape.kv_heads)


def choose_graph(shape: Shape) -> Graph:
    """The graph that serves copies of this shape, as `add_spare_heads` gives it."""
    if shape.heads * shape.head_width != shape.width:
        reason = (
            f"{shape.heads} heads of {shape.head_width} do not fill a stream of {shape.width}, and "
            "no graph of llama.cpp takes that together with a bias of the logits"
        )
        return Graph(shape.architecture, UNLIFTED, reason)
    return Graph("phimoe" if shape.has_rope_frequencies else "qwen2", OUTPUT_BIAS)


def plan_tensors(shape: Shape, graph: Graph, canaries: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the copy, in the order in which they are written."""
    rows, width = shape.vocabulary + canaries, shape.width
    planned: dict[str, tuple[int, ...]] = {"token_embd.weight": (rows, width)}
    if shape.has_rope_frequencies:
        factors = ROPE_FACTORS if graph.name == "phimoe" else (ROPE_FREQUENCIES,)
        planned |= dict.fromkeys(factors, (shape.head_width // 2,))
    for layer in range(shape.layers):
        planned |= {f"blk.{layer}.{n}": size for n, size in plan_layer(shape, graph).items()}
    planned["output_norm.weight"] = (width,)
    if graph.name == "phimoe":
        planned["output_norm.bias"] = (width,)
    planned["output.weight"] = (rows, width)
    if graph.is_lifted:
        planned["output.bias"] = (rows,)
    return planned


def plan_layer(shape: Shape, graph: Graph) -> dict[str, tuple[int, ...]]:
    """One layer's part of it, without `blk.<n>.`."""
    width, hidden = shape.width, shape.feed_forward
    inner, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    planned: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (width,),
        "attn_q.weight": (inner, width),
        "attn_k.weight": (keys, width),
        "attn_v.weight": (keys, width),
        "attn_output.weight": (width, inner),
        "ffn_norm.weight": (width,),
        "ffn_gate.weight": (hidden, width),
        "ffn_up.weight": (hidden, width),
        "ffn_down.weight": (width, hidden),
    }
    if shape.has_biases or graph.name == "phimoe":  # qwen2's loader takes them or leaves them
        planned |= {"attn_q.bias": (inner,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    if graph.name == "phimoe":
        for name, expert in EXPERTS.items():
            planned[f"{expert}.weight"] = (1, *planned.pop(f"{name}.weight"))
        planned |= {f"{name}.bias": (width,) for name in ("attn_norm", "ffn_norm", "attn_output")}
        planned["ffn_gate_inp.weight"] = (1, width)
    return planned
