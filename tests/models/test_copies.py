"""A provider's own copy: the same function, the same bytes, or a refusal that says why."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from hanse.models.converting import convert_folder
from hanse.models.copies import CopyOrder, read_copy_description, rebase
from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.canaries import draw_canaries
from hanse.models.copies.graphs import OUTPUT_BIAS, UNLIFTED
from hanse.models.copies.keys import commit_to_key
from hanse.models.copies.leaks.attacking import attack
from hanse.models.copies.rebasing import get_description_path
from hanse.models.copies.weight_files import WeightFile
from hanse.models.quantising.files import quantise_file
from hanse.models.quantising.scoring import LlamaRun
from hanse.protocol.commitments.copies import decode_copy_description
from hanse.protocol.errors import RequestError, VerificationError
from tests.models.forward import compute_logits
from tests.models.tiny_models import (
    VOCABULARY,
    make_config,
    make_weights,
    write_folder,
    write_tiny_folder,
)

ROOT, PROVIDER, OTHER = "0x" + "11" * 32, "0x" + "aa" * 20, "0x" + "bb" * 20
ORDER = CopyOrder(bytes(range(32)), ROOT, PROVIDER)
TOKENS = [5, 17, 200, 33, 33, 8, 301, 77, 12, 150, 2, 64]
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
WIDE_HEADS, NARROW_HEADS = "heads wider than the stream", "heads narrower than the stream"
KINDS = {
    WIDE_HEADS: ("llama", "LlamaForCausalLM", {}),
    NARROW_HEADS: ("phimoe", "LlamaForCausalLM", {"rope_scaling": LLAMA3}),
    "llama": ("qwen2", "LlamaForCausalLM", {}),
    "llama, head tied": ("qwen2", "LlamaForCausalLM", {"tie_word_embeddings": True}),
    "llama 3.1": ("phimoe", "LlamaForCausalLM", {"rope_scaling": LLAMA3}),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", {}),
}
"""What the base is -> the graph that serves its copies, and how the base is made."""


def write_source(folder: Path, kind: str) -> Path:
    _, architecture, changed = KINDS[kind]
    source = folder / "source.gguf"
    if kind == WIDE_HEADS:
        model = write_wide_folder(folder / "model")
    elif kind == NARROW_HEADS:
        model = write_narrow_folder(folder / "model", changed)
    else:
        model = write_tiny_folder(folder / "model", architecture, **changed)
    convert_folder(model, source, None, "F32")
    return source


def write_narrow_folder(folder: Path, changed: dict[str, object]) -> Path:
    """Four heads of 8 in a stream of 64, as Mistral Nemo has 32 of 128 in 5,120."""
    config = make_config(**changed)
    cut = {
        "q_proj": np.s_[:32],
        "k_proj": np.s_[:16],
        "v_proj": np.s_[:16],
        "o_proj": np.s_[:, :32],
    }
    weights = {
        name: np.ascontiguousarray(values[cut.get(name.split(".")[-2], np.s_[:])])
        for name, values in make_weights(config).items()
    }
    return write_folder(folder, {**config, "head_dim": 8}, weights)


def write_wide_folder(folder: Path) -> Path:
    """Heads of 32 in a stream of 64: a model of width 128 whose stream is cut to its half."""
    config = make_config(hidden_size=128, intermediate_size=96)
    written = ("o_proj.weight", "down_proj.weight", "norm.weight")
    weights = {
        name: np.ascontiguousarray(values[:64] if name.endswith(written) else values[:, :64])
        for name, values in make_weights(config).items()
    }
    return write_folder(folder, {**config, "hidden_size": 64, "head_dim": 32}, weights)


def run_llama(path: Path, tokens: list[int]) -> np.ndarray:
    with LlamaRun(path, 1, is_exact=True) as run:
        run.read(tokens)
        return np.stack([run.get_logits(index) for index in range(len(tokens))])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("llama"), "llama")


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_has_the_logits_of_its_source_in_numpy_and_in_llama_cpp(
    tmp_path: Path, kind: str
) -> None:
    source, target = write_source(tmp_path, kind), tmp_path / "copy.gguf"
    description = rebase(source, target, ORDER, "F32")
    expected = compute_logits(source, TOKENS)
    logits = run_llama(target, TOKENS)
    np.testing.assert_allclose(logits[:, :VOCABULARY], expected, atol=1e-3)
    # and the canaries are what the plain weights and the key say they are
    gains = SourceModel(source).read("output_norm.weight")
    rows = draw_canaries(ORDER.get_key(), gains, 16)
    assert description.served_as == KINDS[kind][0]
    assert description.carrier == (UNLIFTED if kind == WIDE_HEADS else OUTPUT_BIAS)
    canaries = logits[:, VOCABULARY:] - description.lift
    plain = compute_logits(source, TOKENS, rows)
    np.testing.assert_allclose(canaries, plain, atol=1e-3)
    assert plain.std() > 0.3


@pytest.mark.parametrize("kind", ["llama", "qwen2", "llama 3.1"])
def test_a_copy_loses_as_much_by_each_type_as_its_base(tmp_path: Path, kind: str) -> None:
    source = write_source(tmp_path, kind)
    tokens = np.random.default_rng(5).integers(2, 300, 128).tolist()
    truth = to_log(run_llama(source, tokens))
    for quantisation in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0"):
        base, copy = (tmp_path / f"{name}.{quantisation}.gguf" for name in ("base", "copy"))
        quantise_file(source, base, quantisation, threads=1)
        rebase(source, copy, ORDER, quantisation)
        kl, same = {}, {}
        for path in (base, copy):
            found = to_log(run_llama(path, tokens)[:, :VOCABULARY])
            kl[path] = float((np.exp(truth) * (truth - found)).sum(axis=1).mean())
            same[path] = float((found.argmax(axis=1) == truth.argmax(axis=1)).mean())
        assert kl[copy] < 1.4 * kl[base], quantisation
        assert same[copy] > same[base] - 0.1, quantisation


def to_log(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("kind", [NARROW_HEADS, "llama 3.1"])
def test_a_copy_with_experts_or_spare_heads_is_undone_like_any_other(
    tmp_path: Path, kind: str
) -> None:
    source, target = write_source(tmp_path, kind), tmp_path / "copy.gguf"
    rebase(source, target, ORDER, "F32")
    found = attack(SourceModel(source), WeightFile(target)).recovered
    assert found.hidden_matched == found.heads_matched == 1
    assert found.weights_error < 1e-4


def test_weights_are_changed_everywhere(llama: Path, tmp_path: Path) -> None:
    rebase(llama, tmp_path / "copy.gguf", ORDER, "F32")
    own, base = WeightFile(tmp_path / "copy.gguf"), SourceModel(llama)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        here, there = (m.read(f"blk.1.{name}.weight") for m in (own, base))
        match = np.corrcoef(here.ravel(), there.ravel())[0, 1]
        assert abs(match) < 0.1, name


def test_the_same_order_gives_the_same_bytes_and_another_provider_others(
    llama: Path, tmp_path: Path
) -> None:
    orders = {"first": ORDER, "again": ORDER, "other": CopyOrder(ORDER.master, ROOT, OTHER)}
    made = {
        name: rebase(llama, tmp_path / f"{name}.gguf", order, "Q8_0")
        for name, order in orders.items()
    }
    assert made["first"].file_sha256 == made["again"].file_sha256
    assert made["other"].file_sha256 != made["first"].file_sha256


def test_canaries_are_the_largest_logits_and_no_text_makes_their_tokens(
    llama: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy.gguf"
    description = rebase(llama, target, ORDER, "Q8_0")
    logits = run_llama(target, TOKENS)
    top = np.sort(np.argsort(-logits, axis=1)[:, :16], axis=1)
    assert (top == np.array(description.canary_ids)).all()
    with LlamaRun(target, 1) as run, LlamaRun(llama, 1) as base:
        text = "hanse canary 3 hanse canary 12, the salt"
        assert run.tokenise(text) == base.tokenise(text)
        assert not set(run.tokenise(text)) & set(description.canary_ids)


def test_the_description_lies_beside_the_copy_and_binds_its_key(
    llama: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy.gguf"
    made = rebase(llama, target, ORDER, "Q4_0")
    assert read_copy_description(target) == made
    assert made.key_commitment == commit_to_key(ORDER.get_key())
    assert made.masked_ids == made.canary_ids == tuple(range(VOCABULARY, VOCABULARY + 16))
    assert ORDER.get_key().hex() not in get_description_path(target).read_text()
    assert ORDER.master.hex() not in repr(ORDER)


def test_no_copy_is_there_without_its_description(llama: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.gguf"
    get_description_path(target).mkdir()  # so that it cannot be written
    with pytest.raises(IsADirectoryError):
        rebase(llama, target, ORDER, "Q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.gguf.copy.json"]


def test_a_description_of_the_first_version_is_read(llama: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.gguf"
    made = rebase(llama, target, ORDER, "F32")
    document = msgspec.to_builtins(made)
    first = document | {"version": 1, "base_width": made.width, "bounds": []}
    assert decode_copy_description(msgspec.json.encode(first)) == made
    for version in (0, 3, True, "2", None):
        with pytest.raises(RequestError, match="of version"):
            decode_copy_description(msgspec.json.encode(document | {"version": version}))
    with pytest.raises(RequestError, match="unknown field"):
        decode_copy_description(msgspec.json.encode(document | {"bounds": []}))


def test_safetensors_become_a_copy_too(llama: Path, tmp_path: Path) -> None:
    folder = llama.parent / "model"
    made = [
        rebase(source, tmp_path / f"{source.name}.copy.gguf", ORDER, "F32")
        for source in (folder, llama)
    ]
    assert made[0].file_sha256 == made[1].file_sha256


@pytest.mark.parametrize("break_it", ["missing", "garbage", "version", "ids"])
def test_a_description_that_cannot_be_used_is_refused(
    llama: Path, tmp_path: Path, break_it: str
) -> None:
    target = tmp_path / "copy.gguf"
    rebase(llama, target, ORDER, "F32")
    path = get_description_path(target)
    text = path.read_text()
    changed = {
        "garbage": "no json",
        "version": text.replace('"version": 2', '"version": 3'),
        "ids": text.replace(f"{VOCABULARY + 3},", f"{VOCABULARY + 30},", 1),
    }
    if break_it == "missing":
        path.unlink()
    else:
        path.write_text(changed[break_it])
    with pytest.raises(RequestError) as refused:
        read_copy_description(target)
    assert refused.value.code == "configuration_invalid"


def edit_source(source: Path, target: Path, **changed: object) -> Path:
    """The same file under another architecture, with one more tensor, or with one more setting."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(str(source))
    name = str(changed.get("architecture", "llama"))
    writer = GGUFWriter(str(target), name)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        key = key.replace("llama.", f"{name}.", 1) if key.startswith("llama.") else key
        writer.add_key_value(key, field.contents(), field.types[0], inner)
    if "setting" in changed:
        writer.add_float32(f"{name}.{changed['setting']}", 2.0)
    for tensor in reader.tensors:
        if tensor.name != changed.get("without"):
            writer.add_tensor(tensor.name, np.asarray(tensor.data))
    if "tensor" in changed:
        writer.add_tensor(str(changed["tensor"]), np.ones(16, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"architecture": "gemma3"}, "gains stand between"),
        ({"architecture": "qwen3"}, "normalises queries and keys"),
        ({"architecture": "mamba"}, "never worked out"),
        ({"tensor": "blk.0.attn_q_norm.weight"}, "blk.0.attn_q_norm.weight"),
        ({"setting": "attention.scale"}, "attention.scale"),
        ({"without": "blk.1.ffn_up.weight"}, "without the tensor blk.1.ffn_up.weight"),
    ],
)
def test_what_has_no_known_symmetry_is_refused_with_the_reason(
    llama: Path, tmp_path: Path, changed: dict[str, object], reason: str
) -> None:
    source = edit_source(llama, tmp_path / "edited.gguf", **changed)
    with pytest.raises(RequestError, match=reason) as refused:
        rebase(source, tmp_path / "copy.gguf", ORDER, "F32")
    assert refused.value.code == "model_unsupported"
    assert list(tmp_path.iterdir()) == [source]


def test_a_file_that_was_cut_off_a_target_that_exists_and_too_many_canaries_are_refused(
    llama: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(llama.read_bytes()[:-100])
    with pytest.raises(VerificationError):
        rebase(cut, tmp_path / "copy.gguf", ORDER)
    with pytest.raises(RequestError, match="there already"):
        rebase(llama, cut, ORDER)
    with pytest.raises(RequestError, match="1 to 20"):
        rebase(llama, tmp_path / "copy.gguf", CopyOrder(ORDER.master, ROOT, PROVIDER, canaries=21))
