"""Providers' own copies of the packaged model: what they cost, what undoes them, whom they name.

    python -m benchmarks.bench_copies [--copies 100] [--cases attack,trace]

One JSON line a case:

    exact    logits of the float32 copy against the source's, both in float32
    quality  KL and top-1 of copy and base at each type, against the source in float32; how far the
             canaries stand above the tokens; what Q4_0 for Q8_0 and another's copy do to them
    attack   what `hanse models attack` recovers, held against the key
    trace    a leaked file, washed or not, against many candidates: leaker's and strangers' scores
    answers  the same by logprobs alone, as `hanse models trace --endpoint` asks for them

Every figure is of this machine's llama.cpp (cyllama); texts are below and in hanse.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hanse.cli.modelling.copies.asking import ANSWER_TOKENS, LISTED, PROMPTS
from hanse.engines.gguf_files import find_packaged_model
from hanse.models.copies import CopyOrder, rebase
from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.canaries import draw_canaries
from hanse.models.copies.keys import derive_copy_key
from hanse.models.copies.leaks import tracing
from hanse.models.copies.leaks.answer_tracing import SCORE_MIN as ANSWER_SCORE_MIN
from hanse.models.copies.leaks.answer_tracing import Told, compare_answers, parse_told
from hanse.models.copies.leaks.attacking import attack
from hanse.models.copies.leaks.spelling import Spelling
from hanse.models.copies.stream_basis import draw_stream_basis, list_turned, rank_coordinates
from hanse.models.copies.weight_files import WeightFile
from hanse.models.quantising.costs import read_text
from hanse.models.quantising.files import quantise_file
from hanse.models.quantising.scoring import PIECE_TOKENS, LlamaRun

MASTER, ROOT = bytes(range(32)), "0x" + "11" * 32
OWN, OTHER, THIEF = ("0x" + digits * 20 for digits in ("aa", "bb", "ee"))
TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0")
ANSWER_TYPES = ("Q8_0", "Q4_0")
BY_ID = Spelling("llama", ())
LEAKS = 4
"""Copies that answer, in the trace by answers; each is held against all."""
THREADS = 2
TOKENS_MAX = 512
"""Of one text."""

TEXTS = (
    "<|im_start|>user\nWhy did the Hanseatic League decline?<|im_end|>\n<|im_start|>assistant\n"
    "Territorial states grew stronger and no longer granted the merchants of Lübeck their old "
    "privileges. Trade moved to the Atlantic, and the herring left the coast of Scania.<|im_end|>",
    'import json\n\ndef read_settings(path):\n    """Read settings, or give defaults."""\n'
    '    if not path.exists():\n        return {"port": 8080, "hosts": ["localhost"]}\n'
    "    with path.open() as file:\n        return json.load(file)\n",
    '{"name": "Anna", "age": 31, "languages": ["German", "English"], "orders": [{"id": 1, '
    '"total": 20.5}, {"id": 2, "total": 7.25}]}\n1. Wash the rice.\n2. Add water.\n3. Boil.\n',
    "Die Hanse war ein Bund norddeutscher Kaufleute und Städte. Il était une fois une petite fille "
    "que tout le monde aimait bien. El perro corre por el parque mientras los niños juegan.",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=100, help="candidates of the trace")
    parser.add_argument("--answer-copies", type=int, default=16, help="of the trace by answers")
    parser.add_argument("--cases", default="exact,quality,attack,trace,answers")
    wanted = parser.parse_args()
    cases = wanted.cases.split(",")
    with tempfile.TemporaryDirectory(prefix="hanse-copies-") as name:
        folder, source = Path(name), find_packaged_model()
        if "exact" in cases or "quality" in cases:
            exact = folder / "base.F32.gguf"
            quantise_file(source, exact, "F32", threads=THREADS)
            reference = read_logits(exact, is_exact=True)
        if "exact" in cases:
            measure_exactness(folder, source, reference)
        if "quality" in cases:
            measure_quality(folder, source, exact, reference)
        if "attack" in cases:
            measure_attack(folder, source)
        if "trace" in cases:
            measure_trace(folder, source, wanted.copies)
        if "answers" in cases:
            measure_answers(folder, source, wanted.answer_copies)


def say(case: str, **figures: Any) -> None:
    print(json.dumps({"case": case, **figures}), flush=True)


def make_copy(folder: Path, source: Path, provider: str, kind: str) -> Path:
    """The copy's file, made at its first use."""
    path = folder / f"{provider}.{kind}.gguf"
    if not path.exists():
        order = CopyOrder(MASTER, ROOT, provider)
        rebase(source, path, order, kind, threads=THREADS)
    return path


def read_logits(path: Path, *, is_exact: bool = False) -> np.ndarray:
    """Raw logits at every position of all texts."""
    rows = []
    with LlamaRun(path, THREADS, is_exact=is_exact) as run:
        for text in (read_text(None), *TEXTS):
            tokens = run.tokenise(text)[:TOKENS_MAX]
            for start in range(0, len(tokens), PIECE_TOKENS):
                piece = tokens[start : start + PIECE_TOKENS]
                run.read(piece)
                rows += [run.get_logits(index) for index in range(len(piece))]
    return np.stack(rows)


def compare(logits: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    kl, same, count = [], 0, reference.shape[1]
    for ours, truth in zip(logits[:, :count], reference, strict=True):
        ours, truth = to_log(ours), to_log(truth)
        kl.append(float((np.exp(truth) * (truth - ours)).sum()))
        same += int(ours.argmax() == truth.argmax())
    return {
        "kl": round(float(np.mean(kl)), 5),
        "kl_error": round(float(np.std(kl) / math.sqrt(len(kl))), 5),
        "same_top": round(same / len(kl), 4),
        "positions": len(kl),
    }


def to_log(row: np.ndarray) -> np.ndarray:
    shifted = row.astype(np.float64) - row.max()
    return shifted - np.log(np.exp(shifted).sum())


def measure_exactness(folder: Path, source: Path, reference: np.ndarray) -> None:
    begun = time.process_time()
    path = make_copy(folder, source, OWN, "F32")
    seconds = time.process_time() - begun
    logits = read_logits(path, is_exact=True)
    worst = float(np.abs(logits[:, : reference.shape[1]] - reference).max())
    say(
        "exact", logit_error_max=worst, **compare(logits, reference), rebase_cpu_s=round(seconds, 1)
    )
    path.unlink()


def measure_quality(folder: Path, source: Path, exact: Path, reference: np.ndarray) -> None:
    kept: dict[tuple[str, str], np.ndarray] = {}
    count = reference.shape[1]
    for kind in TYPES:
        own = folder / f"own.{kind}.gguf"
        quantise_file(exact, own, kind, threads=THREADS)
        say("quality", file="base", type=kind, **compare(read_logits(own), reference),
            size_bytes=own.stat().st_size)  # fmt: skip
        own.unlink()
        for provider in (OWN, OTHER) if kind in ("Q8_0", "Q4_0") else (OWN,):
            path = make_copy(folder, source, provider, kind)
            logits = read_logits(path)
            canaries = logits[:, count:]
            kept[kind, provider] = canaries - canaries.mean(axis=1, keepdims=True)
            gaps = canaries.min(axis=1) - logits[:, :count].max(axis=1)
            say("quality", file=f"copy {provider[2:4]}", type=kind, **compare(logits, reference),
                size_bytes=path.stat().st_size, canaries_on_top=float((gaps > 0).mean()),
                gap_min=round(float(gaps.min()), 1), gap_max=round(float(gaps.max()), 1),
                canary_spread=round(float(kept[kind, provider].std()), 3),
                canary_max=round(float(np.abs(kept[kind, provider]).max()), 2))  # fmt: skip
    honest = kept["Q8_0", OWN]
    for name, cheat in (("Q4_0", kept["Q4_0", OWN]), ("other copy", kept["Q8_0", OTHER])):
        error = np.abs(cheat - honest).mean(axis=1) / np.abs(honest).mean(axis=1)
        say("quality", fingerprint_of=name, against="Q8_0",
            error_min=round(float(error.min()), 3),
            error_p01=round(float(np.quantile(error, 0.01)), 3),
            error_median=round(float(np.median(error)), 3))  # fmt: skip


def measure_attack(folder: Path, source: Path) -> None:
    base = SourceModel(source)
    key = derive_copy_key(MASTER, ROOT, OWN, 0)
    gains = base.read("output_norm.weight")
    identity = np.eye(base.shape.width, dtype=np.float32)
    rotation = draw_stream_basis(key, rank_coordinates(base)).apply(identity)
    canaries = draw_canaries(key, gains, 16) * gains
    for kind in ("Q8_0", "Q4_0"):
        loot = attack(base, WeightFile(make_copy(folder, source, OWN, kind)))
        say("attack", type=kind,
            **{name: round(getattr(loot.recovered, name), 5)
               for name in loot.recovered.__struct_fields__},
            rotation_error=get_error(loot.rotation, rotation),
            canaries_error=get_error(loot.canaries, canaries))  # fmt: skip


def get_error(found: np.ndarray, truth: np.ndarray) -> float:
    return round(float(np.linalg.norm(found - truth) / np.linalg.norm(truth)), 5)


def measure_trace(folder: Path, source: Path, count: int) -> None:
    base = SourceModel(source)
    ranked = rank_coordinates(base)
    providers = [OWN, OTHER, *(f"0x{index:040x}" for index in range(count - 2))]
    for kind in ("Q8_0", "Q4_0"):
        leaks = {}
        for leaker in (OWN, OTHER):
            stolen = tracing.read_residues(
                base, WeightFile(make_copy(folder, source, leaker, kind))
            )
            leaks[leaker, "as it was"] = stolen
            leaks[leaker, "turned, Q8_0 again"] = wash(base, ranked, stolen, "Q8_0")
            leaks[leaker, "turned, Q4_0 again"] = wash(base, ranked, stolen, "Q4_0")
        scores: dict[Any, list[tuple[str, float]]] = {leak: [] for leak in leaks}
        begun = time.process_time()
        for provider in providers:
            key = derive_copy_key(MASTER, ROOT, provider, 0)
            own = tracing.make_residues(base, key, ranked, kind)
            for leak, stolen in leaks.items():
                parts = tracing.compare_residues(stolen, own, list_turned(ranked))
                scores[leak].append((provider, sum(parts.values()) / len(parts)))
        seconds = (time.process_time() - begun) / len(providers)
        for (leaker, how), rows in scores.items():
            strangers = np.array([score for provider, score in rows if provider != leaker])
            say("trace", type=kind, leaked=how, leaker=leaker[2:4],
                score=round(dict(rows)[leaker], 4), strangers=len(strangers),
                strangers_max=round(float(strangers.max()), 5),
                strangers_sd=round(float(strangers.std()), 5),
                false_attributions=int((strangers >= tracing.SCORE_MIN).sum()),
                candidate_cpu_s=round(seconds, 2))  # fmt: skip


def wash(base: SourceModel, ranked: Any, stolen: dict[str, np.ndarray], kind: str) -> Any:
    """What is left of the residues once the thief has turned by a key of its own and rounded.

    Exact for the embeddings, whose rows a thief can only turn; the gates are turned alike.
    """
    basis = draw_stream_basis(derive_copy_key(MASTER[::-1], ROOT, THIEF, 0), ranked)
    back = basis.apply(np.eye(base.shape.width, dtype=np.float32)).T
    own = {"token_embd": thin(base.read("token_embd.weight"))}
    for layer in tracing.list_layers(base):
        gains = base.read(f"blk.{layer}.ffn_norm.weight")
        own[f"ffn_gate {layer}"] = thin(base.read(f"blk.{layer}.ffn_gate.weight") * gains)
    return {
        name: tracing.round_weights(basis.apply(rows + stolen[name]), kind) @ back - rows
        for name, rows in own.items()
    }


def thin(rows: np.ndarray) -> np.ndarray:
    return rows[:: -(-len(rows) // tracing.ROWS_MAX)]


def measure_answers(folder: Path, source: Path, count: int) -> None:
    """Every leak against every copy, and servers of the public model, which is nobody's copy."""
    providers = [OWN, OTHER, *(f"0x{index:040x}" for index in range(count - 2))]
    for kind in ANSWER_TYPES:
        candidates = [make_copy(folder, source, provider, kind) for provider in providers]
        plain = folder / f"public.{kind}.gguf"
        quantise_file(source, plain, kind, threads=THREADS)
        leaks = zip((*providers[:LEAKS], "public"), (*candidates[:LEAKS], plain), strict=True)
        for leaker, file in leaks:
            told = [answer(file, text, 0 if file == plain else 16) for text in PROMPTS]
            scores = compare_answers(source, candidates, told, THREADS)
            by_provider = dict(zip(providers, scores, strict=True))
            own = by_provider.pop(leaker, None)
            strangers = np.array(list(by_provider.values()))
            say("answers", type=kind, leaker=leaker[-4:],
                positions=sum(len(part.answer) for part in told),
                score=None if own is None else round(own, 4), strangers=len(strangers),
                strangers_mean=round(float(strangers.mean()), 4),
                strangers_sd=round(float(strangers.std()), 4),
                strangers_max=round(float(strangers.max()), 4),
                false_attributions=int((strangers >= ANSWER_SCORE_MIN).sum()))  # fmt: skip
        for file in (*candidates, plain):
            file.unlink()


def answer(model: Path, text: str, canaries: int, tokens: int = ANSWER_TOKENS) -> Told:
    """A greedy answer as llama.cpp's server would tell it, canaries masked."""
    content = []
    with LlamaRun(model, THREADS) as run:
        prompt = run.tokenise(text)
        run.read(prompt)
        place = len(prompt)
        for index in range(tokens):
            logits = run.get_logits(-1)
            logprobs = to_log(logits)
            chosen = int(logits[: run.vocabulary - canaries].argmax())
            best = np.argsort(-logits)[:LISTED]
            listed = [{"id": int(token), "logprob": float(logprobs[token])} for token in best]
            content.append({"id": chosen, "top_logprobs": listed})
            run.read([chosen], place + index)
    return parse_told({"choices": [{"logprobs": {"content": content}}]}, prompt, BY_ID)


if __name__ == "__main__":
    main()
