"""Makes a provider's own copy: source model and key in, copy file and its description out.

    description = rebase(source, target, CopyOrder(master, root, provider, epoch=0), "Q8_0")

The same order gives the same bytes: the float32 weights on every machine, the quantised ones by the
same version of the quantiser, which the description names. Needs memory for the largest tensor in
float32 a few times over and disk for the whole model in float32, beside the target.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.models.converting import convert_folder
from hanse.models.copies.architectures import ROPE_FREQUENCIES, Shape, SourceModel
from hanse.models.copies.canaries import (
    CANARIES_DEFAULT,
    FINGERPRINT_SCALE,
    LIFT_DEFAULT,
    draw_canaries,
)
from hanse.models.copies.graphs import (
    EXPERTS,
    ROPE_FACTORS,
    Graph,
    add_spare_heads,
    choose_graph,
    plan_layer,
    plan_tensors,
)
from hanse.models.copies.keys import commit_to_key, derive_copy_key
from hanse.models.copies.stream_basis import StreamBasis, draw_stream_basis, rank_coordinates
from hanse.models.copies.symmetries import (
    draw_layer,
    fold_layer,
    join_pairs,
    rebase_layer,
)
from hanse.models.copies.writing import (
    get_quantiser,
    write_tensors,
)
from hanse.models.quantising.files import find_type, quantise_file
from hanse.models.tensors import Progress
from hanse.protocol.commitments.copies import (
    CANARIES_MAX,
    COPY_SUFFIX,
    COPY_VERSION,
    CopyDescription,
    decode_copy_description,
    encode_copy_description,
)
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Address, Hash32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Named = tuple[str, NDArray[np.float32]]

FLOAT = "F32"
"""The quantisation that is none."""


@dataclass(frozen=True)
class CopyOrder:
    """Whose copy of what; together this decides every byte.

    Attributes:
        master: 32 secret bytes; kept out of `repr`.
        base_root: root of the base model's manifest.
        provider: whom the copy is for.
        epoch: which of this provider's copies.
        canaries: K, 1 to 20.
        lift: of the canaries' logits, where the copy's graph can lift them.
    """

    master: bytes
    base_root: Hash32
    provider: Address
    epoch: int = 0
    canaries: int = CANARIES_DEFAULT
    lift: float = LIFT_DEFAULT

    def __repr__(self) -> str:
        return f"CopyOrder({self.base_root}, {self.provider}, epoch {self.epoch})"

    def get_key(self) -> bytes:
        """The copy's key."""
        return derive_copy_key(self.master, self.base_root, self.provider, self.epoch)


def rebase(
    source: Path,
    target: Path,
    order: CopyOrder,
    quantisation: str = "Q8_0",
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> CopyDescription:
    """Write the copy to `target`; it appears whole, with its description beside it, or not.

    Args:
        source: a GGUF file, or a folder with safetensors, which is written as GGUF first.
        target: the copy; must not exist.
        order: whose copy.
        quantisation: a type of `hanse models quantise`; F32 for none.
        threads: of the quantiser.
        progress: told what is being done.

    Raises:
        VerificationError: `model_invalid`, the source is no valid model.
        RequestError: `model_unsupported`, the source cannot be rebased; `usage`, the target is
            there already, or there is no such quantisation.
    """
    quantisation = find_type(quantisation)
    check_order(order, target)
    converted = target.with_name(f"{target.stem}.source-{os.getpid()}.gguf")
    whole = target.with_name(f"{target.stem}.float-{os.getpid()}.gguf")
    ready = target.with_name(f"{target.stem}.ready-{os.getpid()}.gguf")
    try:
        if source.is_dir():
            convert_folder(source, converted, progress, FLOAT)
            source = converted
        model = SourceModel(source)
        served = add_spare_heads(model.shape)
        graph = choose_graph(served)
        planned = plan_tensors(served, graph, order.canaries)
        tensors = make_tensors(model, order, served, graph, progress)
        write_tensors(model, whole, served, graph, planned, tensors)
        if quantisation == FLOAT:
            os.replace(whole, ready)
        else:
            quantise_file(whole, ready, quantisation, threads=threads, progress=progress)
        description = describe(model, order, graph, quantisation, ready)
        # first: a copy without it would be served as a plain model, canaries and all
        get_description_path(target).write_bytes(encode_copy_description(description))
        os.replace(ready, target)
    finally:
        for part in (whole, converted, ready):
            part.unlink(missing_ok=True)
    return description


def check_order(order: CopyOrder, target: Path) -> None:
    """Refuse an order that no copy can fill, and a target that is there already.

    Raises:
        RequestError: `usage`.
    """
    if not 0 < order.canaries <= CANARIES_MAX:
        raise RequestError(
            "usage", f"a copy has 1 to {CANARIES_MAX} canaries, not {order.canaries}"
        )
    if target.exists():
        raise RequestError("usage", f"{target} is there already; remove it or name another one.")


def get_description_path(copy: Path) -> Path:
    """Where the description of this copy lies."""
    return copy.with_name(copy.name + COPY_SUFFIX)


def read_copy_description(copy: Path) -> CopyDescription:
    """The description beside a copy's file.

    Raises:
        RequestError: `configuration_invalid`, there is none, or it cannot be used.
    """
    path = get_description_path(copy)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RequestError(
            "configuration_invalid",
            f"{copy.name} is no copy: {path.name} cannot be read ({error.strerror}). "
            "Make one: hanse models rebase.",
            param="model_path",
        ) from error
    return decode_copy_description(raw)


def make_tensors(
    model: SourceModel, order: CopyOrder, served: Shape, graph: Graph, progress: Progress | None
) -> "Iterator[Named]":
    """All tensors of the copy in the planned order."""
    import numpy as np

    key, shape = order.get_key(), served
    basis = draw_stream_basis(key, rank_coordinates(model))
    blank = np.zeros((order.canaries, shape.width), dtype=np.float32)
    yield "token_embd.weight", np.vstack((basis.apply(model.read("token_embd.weight")), blank))
    if shape.has_rope_frequencies:
        factors = model.read(ROPE_FREQUENCIES)
        for name in ROPE_FACTORS if graph.name == "phimoe" else (ROPE_FREQUENCIES,):
            yield name, factors
    for layer in range(shape.layers):
        if progress:
            progress("rebasing", layer / shape.layers)
        yield from _make_layer(model, key, layer, served, graph, basis)
    gains = model.read("output_norm.weight")
    yield "output_norm.weight", basis.get_gains(gains)
    if graph.name == "phimoe":
        yield "output_norm.bias", np.zeros_like(gains)
    head = np.vstack((model.read_head(), draw_canaries(key, gains, order.canaries)))
    yield "output.weight", basis.apply(head * basis.get_ratios(gains))
    if graph.is_lifted:
        bias = np.zeros(len(head), dtype=np.float32)
        bias[shape.vocabulary :] = order.lift
        yield "output.bias", bias


def _make_layer(
    model: SourceModel, key: bytes, layer: int, served: Shape, graph: Graph, basis: StreamBasis
) -> "Iterator[Named]":
    """One layer's tensors in the planned order."""
    import numpy as np

    folded = fold_layer(model, layer, basis, served)
    weights = rebase_layer(folded, draw_layer(key, served, layer), basis, served)
    plain = {f"{expert}.weight": f"{name}.weight" for name, expert in EXPERTS.items()}
    for name, size in plan_layer(served, graph).items():
        values = weights.get(plain.get(name, name))
        if values is None:  # the graph has it, and Llama's has not
            values = np.zeros(size, dtype=np.float32)
        elif not graph.is_lifted and served.is_pairwise and name[:6] in ("attn_q", "attn_k"):
            values = join_pairs(values, served)
        yield f"blk.{layer}.{name}", values.reshape(size)


def describe(
    model: SourceModel, order: CopyOrder, graph: Graph, quantisation: str, file: Path
) -> CopyDescription:
    """The description of a copy whose weights are in `file`."""
    shape = model.shape
    ids = tuple(range(shape.vocabulary, shape.vocabulary + order.canaries))
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return CopyDescription(
        version=COPY_VERSION,
        base_root=order.base_root,
        provider=order.provider,
        epoch=order.epoch,
        key_commitment=commit_to_key(order.get_key()),
        architecture=shape.architecture,
        served_as=graph.name,
        carrier=graph.carrier,
        quantisation=quantisation,
        quantiser="none" if quantisation == FLOAT else get_quantiser(),
        width=shape.width,
        vocabulary=shape.vocabulary,
        canary_ids=ids,
        masked_ids=ids,
        lift=order.lift if graph.is_lifted else 0.0,
        fingerprint_scale=FINGERPRINT_SCALE,
        file_sha256="0x" + digest,
        file_bytes=file.stat().st_size,
    )
