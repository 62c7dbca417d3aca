"""What a leaked copy gives away, and whom it names: tiny models, the thief has the base."""

from pathlib import Path

import numpy as np
import pytest

from hanse.models.converting import convert_folder
from hanse.models.copies import CopyDescription, CopyOrder, rebase
from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.canaries import draw_canaries
from hanse.models.copies.keys import derive_copy_key
from hanse.models.copies.leaks.answer_tracing import SCORE_MIN as ANSWER_SCORE_MIN
from hanse.models.copies.leaks.answer_tracing import Told, compare_answers, list_places, parse_told
from hanse.models.copies.leaks.attacking import attack
from hanse.models.copies.leaks.spelling import Spelling
from hanse.models.copies.leaks.tracing import (
    SCORE_MIN,
    compare_residues,
    make_residues,
    read_residues,
    round_weights,
    trace_file,
)
from hanse.models.copies.stream_basis import draw_stream_basis, list_turned, rank_coordinates
from hanse.models.copies.weight_files import WeightFile
from hanse.models.quantising.scoring import LlamaRun
from hanse.protocol.errors import VerificationError
from tests.models.tiny_models import write_tiny_folder

MASTER, ROOT = bytes(range(32)), "0x" + "11" * 32
BY_ID = Spelling("llama", ())
PROVIDERS = tuple(f"0x{index:040x}" for index in range(1, 7))
THIEF = "0x" + "ee" * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three providers' copies at two types."""
    folder = tmp_path_factory.mktemp("leaks")
    write_tiny_folder(folder / "model", hidden_size=128, intermediate_size=192)
    convert_folder(folder / "model", folder / "base.gguf", None, "F32")
    for provider in PROVIDERS[:3]:
        order = CopyOrder(MASTER, ROOT, provider)
        for kind in ("Q8_0", "Q4_0"):
            rebase(folder / "base.gguf", get_copy(folder, provider, kind), order, kind)
    return folder


def get_copy(folder: Path, provider: str, kind: str) -> Path:
    return folder / f"{provider[-1]}.{kind}.gguf"


def describe(folder: Path, provider: str, kind: str) -> CopyDescription:
    """A candidate; of providers whose copies were never made, too: nobody's file is needed."""
    from hanse.models.copies import read_copy_description

    made = read_copy_description(get_copy(folder, PROVIDERS[0], kind))
    return replace_struct(made, provider=provider)


def replace_struct(found: CopyDescription, **changed: object) -> CopyDescription:
    import msgspec

    return msgspec.structs.replace(found, **changed)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_the_attack_recovers_vocabulary_rotation_and_canaries(folder: Path, kind: str) -> None:
    base, copy = SourceModel(folder / "base.gguf"), get_copy(folder, PROVIDERS[0], kind)
    loot = attack(base, WeightFile(copy))
    found = loot.recovered
    assert found.tokens_matched > 0.95
    assert found.hidden_matched == found.heads_matched == 1
    assert found.weights_error < (0.02 if kind == "Q8_0" else 0.15)
    # held against the key, which the attack did not have
    key = derive_copy_key(MASTER, ROOT, PROVIDERS[0], 0)
    truth = draw_stream_basis(key, rank_coordinates(base)).apply(np.eye(128, dtype=np.float32))
    rotation_error = np.linalg.norm(loot.rotation - truth) / np.linalg.norm(truth)
    assert rotation_error < (0.01 if kind == "Q8_0" else 0.1)
    gains = base.read("output_norm.weight")
    canaries = draw_canaries(key, gains, 16) * gains
    error = np.linalg.norm(loot.canaries - canaries) / np.linalg.norm(canaries)
    assert found.canaries_found == 16
    assert error < 0.15


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_leaked_file_names_its_provider_and_nobody_else(folder: Path, kind: str) -> None:
    base = SourceModel(folder / "base.gguf")
    leaked = WeightFile(get_copy(folder, PROVIDERS[1], kind))
    candidates = [describe(folder, provider, kind) for provider in PROVIDERS]
    first, *others = trace_file(base, leaked, MASTER, candidates)
    assert first.copy.provider == PROVIDERS[1]
    assert first.score > 0.8  # the fit to 320 tokens takes some of the rounding with it
    assert max(abs(other.score) for other in others) < SCORE_MIN


def test_a_copy_of_somebody_unknown_names_nobody(folder: Path) -> None:
    base = SourceModel(folder / "base.gguf")
    leaked = WeightFile(get_copy(folder, PROVIDERS[0], "Q8_0"))
    candidates = [describe(folder, provider, "Q8_0") for provider in PROVIDERS[1:]]
    assert not any(found.is_named for found in trace_file(base, leaked, MASTER, candidates))
    another_master = trace_file(
        base, leaked, MASTER[::-1], [describe(folder, PROVIDERS[0], "Q8_0")]
    )
    assert not another_master[0].is_named


def test_turning_and_rounding_again_does_not_wash_the_name_off(folder: Path) -> None:
    base = SourceModel(folder / "base.gguf")
    stolen = read_residues(base, WeightFile(get_copy(folder, PROVIDERS[0], "Q8_0")))
    ranked = rank_coordinates(base)
    basis = draw_stream_basis(derive_copy_key(MASTER, ROOT, THIEF, 0), ranked)
    back = basis.apply(np.eye(128, dtype=np.float32)).T
    own = base.read("token_embd.weight")
    washed = round_weights(basis.apply(own + stolen["token_embd"]), "Q8_0") @ back - own
    scores = [
        compare_residues(
            {"token_embd": washed},
            make_residues(base, derive_copy_key(MASTER, ROOT, provider, 0), ranked, "Q8_0"),
            list_turned(ranked),
        )["token_embd"]
        for provider in PROVIDERS
    ]
    assert scores[0] > 0.5
    assert max(map(abs, scores[1:])) < SCORE_MIN


def test_an_endpoint_that_lists_logprobs_names_its_provider(folder: Path) -> None:
    leaked = get_copy(folder, PROVIDERS[2], "Q8_0")
    told = [answer_as_server(leaked, [seed, 7, 40 + seed]) for seed in range(4)]
    told.insert(1, Told((5, 7), (), ()))  # to one prompt it said nothing
    candidates = [get_copy(folder, provider, "Q8_0") for provider in PROVIDERS[:3]]
    scores = compare_answers(folder / "base.gguf", candidates, told, 1)
    assert scores[2] > 0.9
    assert max(scores[:2]) < ANSWER_SCORE_MIN


def test_an_endpoint_that_says_nothing_at_all_is_refused(folder: Path) -> None:
    with pytest.raises(VerificationError, match="listed 0 comparable"):
        compare_answers(folder / "base.gguf", [], [Told((1, 2), (), ())] * 6, 1)


def answer_as_server(model: Path, prompt: list[int], tokens: int = 16) -> Told:
    """What llama.cpp's server would tell of a greedy answer with masked canaries."""
    content, answer = [], list(prompt)
    with LlamaRun(model, 1) as run:
        for _ in range(tokens):
            run.read(answer)
            logits = run.get_logits(len(answer) - 1)
            logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            best = np.argsort(-logits)[:20]
            chosen = int(np.argmax(logits[:320]))
            listed = [{"id": int(token), "logprob": float(logprobs[token])} for token in best]
            content.append({"id": chosen, "top_logprobs": listed})
            answer.append(chosen)
    return parse_told({"choices": [{"logprobs": {"content": content}}]}, prompt, BY_ID)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"content": [{"id": 1}]}}]},
        {"choices": [{"logprobs": {"tokens": ["a"], "top_logprobs": []}}]},
    ],
)
def test_an_endpoint_without_logprobs_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(VerificationError, match="no logprobs"):
        parse_told(body, [1], BY_ID)


def test_places_of_which_too_little_is_told_are_left_out() -> None:
    first = ((3, 0.0), (4, 0.0), (6, 0.0))
    told = Told((1, 2), (3, 4, 5), (first, ((4, 0.0),), first[:2]))
    assert list_places(told) == [(1, first[:2]), (3, first[:2])]


def test_tokens_told_by_text_are_found_in_the_vocabulary() -> None:
    spelling = Spelling("gpt2", ["the", "Ġharbour", "Ã¼", "Ã", "¼", "<|end|>", "x", "x"])
    by_text: list[object] = [
        {"tokens": ["the", " harbour", "ü", "<|end|>", "x", "the"],
         "top_logprobs": [{"the": -1.0, " harbour": -2.0}, {" harbour": -0.5, "x": -3.0},
                          {"ü": -0.1}, {"token_id:6": -0.2}, {}, {}]},
        {"content": [
            {"token": token, "top_logprobs": [{"token": at, "logprob": value}
                                              for at, value in listed.items()]}
            for token, listed in (("the", {"the": -1.0, " harbour": -2.0}),
                                  (" harbour", {" harbour": -0.5, "x": -3.0}), ("ü", {"ü": -0.1}),
                                  ("<|end|>", {"token_id:6": -0.2}), ("x", {}))
        ]},
    ]  # fmt: skip
    for logprobs in by_text:
        told = parse_told({"choices": [{"logprobs": logprobs}]}, [9], spelling)
        assert told.answer == (0, 1, 2, 5)  # two tokens are spelled x: from there nothing is told
        assert told.listed == (((0, -1.0), (1, -2.0)), ((1, -0.5),), ((2, -0.1),), ((6, -0.2),))


def test_a_file_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    convert_folder(write_tiny_folder(tmp_path / "other"), tmp_path / "other.gguf", None, "F32")
    base = SourceModel(folder / "base.gguf")
    with pytest.raises(VerificationError, match="no copy of this base"):
        attack(base, WeightFile(tmp_path / "other.gguf"))


def test_a_copy_of_a_type_that_only_llama_cpp_rounds_names_its_provider(
    folder: Path, tmp_path: Path
) -> None:
    base, leaked = SourceModel(folder / "base.gguf"), tmp_path / "leaked.gguf"
    made = rebase(base.path, leaked, CopyOrder(MASTER, ROOT, PROVIDERS[1]), "Q4_K_M")
    candidates = [replace_struct(made, provider=provider) for provider in PROVIDERS[:2]]
    first, other = trace_file(base, WeightFile(leaked), MASTER, candidates)
    assert first.copy.provider == PROVIDERS[1]
    assert first.score > 0.8
    assert not other.is_named
