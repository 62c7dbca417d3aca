"""TOPLOC beside Hanse's proof, on the same answers: `make bench-toploc` (HONEST=120 CHEATING=8).

Answers of the packaged model are served by the embedded engine, honestly and by each cheat of
`audit_cheats`. Hanse audits them as always (V2 and V3), in torch. For TOPLOC, whose proof needs the
final hidden states, which llama.cpp's server does not tell, the same tokens are fed through the
cheat's file one by one by cyllama (`toploc_states`); its own package builds and verifies
(`toploc_worker`).

    plain     as TOPLOC is meant: everybody runs the same public weights
    copy      TOPLOC over the provider's own copy, whose hidden states lie in a basis of its own
    torch     the verifier is torch in single precision: a runtime that shares no code with it
    llama     the verifier is llama.cpp by cyllama: the provider's kernels, in other batches
    paper     thresholds of TOPLOC's paper; `calibrated`: by the same rule and the same honest
              answers as Hanse's own, of which the first 80 make thresholds, the rest tries them

On standard output a JSON line for each cheat, scheme, verifier, thresholds and number of tokens
(`prompt`: TOPLOC's proof of the prompt), then lines with the noise and the cost; a table for people
on standard error. States are computed in two processes of one thread.
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import toploc_judging as judging
from benchmarks.audit_cheats import (
    BY_FILE,
    SKIPPED,
    find_files,
    make_files,
    serve,
    serve_cheat,
    without_system,
)
from benchmarks.toploc_side import run_toploc
from benchmarks.toploc_states import open_states
from hanse.auditor.calibrating.noise import Load, Rescored, rescore
from hanse.auditor.calibrating.prompts import make_request
from hanse.auditor.calibrating.serving import Served
from hanse.auditor.opened_model import OpenedModel, open_model
from hanse.engines.gguf_files import find_packaged_model
from hanse.models.quantising.files import quantise_file
from hanse.models.skipping import skip_layers

MODELS = Path(__file__).parents[1] / ".cache" / "bench-toploc"
"""Where copies and plain files are kept from run to run, 1.4 GB."""

TOKENS = 33
"""Of an answer: TOPLOC's proof of tokens then covers 32, a whole one; the first token's state is in
the proof of the prompt."""

LOAD = Load(threads=1, concurrent=4)
HELD_OUT = 300
"""Cheats answer questions from this number on, of which no honest answer was made. All are sampled
at temperature 0.7 or 1 without filters, so that one kind of draw is judged by all thresholds."""

BASES = ("plain", "copy")
VERIFIERS = ("torch", "llama")
FEW = 40
"""So many honest answers are enough where thresholds are not calibrated: the copy, and llama."""

HONEST = {"copy": "own", "plain": "plain"}
NO_PLAIN = ("other-copy",)
"""Cheats that do not exist where all run the same weights."""


@dataclass(frozen=True)
class Case:
    """One answer.

    Attributes:
        name: of its files.
        cheat: or `honest`.
        prompt, answer: tokens, as the verifier reads them.
        fed: the prompt that the provider really ran.
        found: Hanse's numbers.
    """

    name: str
    cheat: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    fed: tuple[int, ...]
    found: Rescored


def find_all_files(folder: Path) -> dict[str, Path]:
    """Every model file, made unless it is there from an earlier run."""
    files = find_files(folder) | {
        "plain": folder / "plain.gguf",
        "plain-own-q4": folder / "plain-own-q4.gguf",
        **{f"plain-{name}": folder / f"plain-{name}.gguf" for name in SKIPPED},
    }
    if all(path.exists() for path in files.values()):
        return files
    tell("making model files, once")
    for path in files.values():
        path.unlink(missing_ok=True)
    make_files(folder)
    quantise_file(find_packaged_model(), files["plain"], "Q8_0", threads=1)
    quantise_file(find_packaged_model(), files["plain-own-q4"], "Q4_0", threads=1)
    for name, layers in SKIPPED.items():
        skip_layers(files["plain"], files[f"plain-{name}"], layers)
    return files


def find_file(cheat: str, basis: str) -> str:
    """The file that a cheat's states come from."""
    by_cheat = "own" if cheat == "cheap-text-prefill" else BY_FILE.get(cheat, "own")
    if basis == "copy":
        return by_cheat
    return "plain" if by_cheat == "own" else f"plain-{by_cheat}"


async def serve_cases(
    files: dict[str, Path], honest: int, cheating: int, folder: Path, spent: list[float]
) -> list[Case]:
    """All answers, with what Hanse's audits measured; `spent` gets their processor seconds."""
    with (
        open_model(files["own"], "llama", threads=1, context_tokens=1_024) as llama,
        open_model(files["own"], "torch", threads=1, context_tokens=1_024) as torch,
    ):
        tell(f"{honest} honest answers")
        answers = await serve(files["own"], pick_questions(0, honest), LOAD, folder)
        cases = list(make_cases("honest", answers, torch, spent))
        for cheat, file in BY_FILE.items():
            tell(f"{cheating} answers of {cheat}")
            questions = pick_questions(HELD_OUT, cheating, needs_system=cheat == "drop-system")
            answers = await serve_cheat(cheat, files[file], questions, LOAD, folder, llama)
            cases += make_cases(cheat, answers, torch, spent)
    return cases


def pick_questions(first: int, count: int, *, needs_system: bool = False) -> list[Any]:
    """Questions from this number on whose sampler has a temperature and no filter."""
    picked: list[Any] = []
    number = first
    while len(picked) < count:
        question = make_request(number, TOKENS)
        body = question[1]
        has_system = body["messages"][0]["role"] == "system"
        if body.get("temperature") and (has_system or not needs_system):
            picked.append(question)
        number += 1
    return picked


def make_cases(
    cheat: str, answers: Sequence[Served], model: OpenedModel, spent: list[float]
) -> Iterator[Case]:
    """Those answers that an audit can judge."""
    for number, served in enumerate(answers):
        began = time.process_time()
        found = rescore(served, model)
        if not isinstance(found, Rescored):
            continue
        spent.append(time.process_time() - began)
        answer = tuple(entry.token for entry in found.entries)
        fed = found.prompt_tokens
        if cheat == "drop-system":
            body = without_system(msgspec.json.decode(served.body))
            reader = model.auditor.reader
            fed = tuple(reader.get_prompt_tokens(served.path, msgspec.json.encode(body)))
        name = f"{cheat}-{number:04}"
        yield Case(name, cheat, found.prompt_tokens, answer, tuple(fed), found)


def collect_states(
    basis: str, cases: Sequence[Case], files: dict[str, Path], place: Path
) -> list[float]:
    """Write the hidden states of provider and verifiers; processor seconds of torch's prefills."""
    import numpy as np

    held: dict[str, dict[str, Any]] = {case.name: {} for case in cases}
    honest = files[HONEST[basis]]
    with open_states("llama", honest) as states:
        for case in [one for one in cases if one.cheat == "honest"][:FEW]:
            held[case.name]["verifier-llama"] = states.prefill(case.prompt, case.answer)
    spent = []
    with open_states("torch", honest) as states:
        for case in cases:
            began = time.process_time()
            held[case.name]["verifier-torch"] = states.prefill(case.prompt, case.answer)
            spent.append(time.process_time() - began)
    for cheat in dict.fromkeys(case.cheat for case in cases):
        path, is_four_bit = files[find_file(cheat, basis)], cheat == "kv4"
        with open_states("llama", path, four_bit_cache=is_four_bit) as states:
            run = states.prefill if cheat == "cheap-text-prefill" else states.decode
            for case in (one for one in cases if one.cheat == cheat):
                held[case.name]["provider"] = run(case.fed, case.answer)
    place.mkdir()
    for case in cases:
        sizes = {"provider_prompt": len(case.fed), "prompt": len(case.prompt)}
        np.savez(place / f"{case.name}.npz", **held[case.name], **sizes)
    return spent


def pick_cases(basis: str, cases: Sequence[Case]) -> list[Case]:
    """What is run in a basis: over copies a few honest answers, over plain weights no copies."""
    if basis == "plain":
        return [case for case in cases if case.cheat not in NO_PLAIN]
    honest = [case for case in cases if case.cheat == "honest"]
    return [*honest[:FEW], *(case for case in cases if case.cheat != "honest")]


async def run(honest: int, cheating: int, folder: Path) -> None:
    hanse_s: list[float] = []
    MODELS.mkdir(parents=True, exist_ok=True)
    files = find_all_files(MODELS)
    cases = await serve_cases(files, honest, cheating, folder, hanse_s)
    tell("hidden states of providers and verifiers")
    places = {basis: folder / f"states-{basis}" for basis in BASES}
    with ProcessPoolExecutor(len(BASES), multiprocessing.get_context("spawn")) as pool:
        jobs = {
            basis: pool.submit(collect_states, basis, pick_cases(basis, cases), files, place)
            for basis, place in places.items()
        }
        toploc_s = {basis: job.result() for basis, job in jobs.items()}
    tell("TOPLOC builds and verifies")
    said = {
        basis: {line["name"]: line for line in run_toploc(place)} for basis, place in places.items()
    }
    lines = [*judging.judge_hanse(cases), *judging.judge_toploc(cases, said)]
    for line in lines:
        print(json.dumps(line), flush=True)
    for line in judging.get_noise(cases, said, VERIFIERS):
        print(json.dumps(line), flush=True)
    cost = judging.get_cost(cases, said["plain"], hanse_s, toploc_s["plain"])
    print(json.dumps(cost), flush=True)
    tell(judging.make_table(lines))
    tell(json.dumps(cost, indent=2))


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--honest", type=int, default=120)
    parser.add_argument("--cheating", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(arguments.honest, arguments.cheating, Path(folder)))


if __name__ == "__main__":
    main()
