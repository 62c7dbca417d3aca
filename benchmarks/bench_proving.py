"""What carrying the proof costs the embedded engine: `make bench-proving COPY=file.gguf`.

Three engines take turns at 1 and at 8 users, round by round and in every second round backwards, so
that a busy machine, and whoever was served just before, trouble all alike:

    plain     the model as it is
    copy      the provider's copy, its canaries masked, no proof: what the copy itself costs
    proving   the copy with its proof asked for, read, and taken out of the frames
    told      the same, by the server's own way (`direct_canaries = false`); if asked for by SIDES
    wrapped   told, with the `expf` that llama.cpp's wheel asks for; likewise

Nothing stands between the engines and who asks: the reading process is what a broker has anyway.
Each side answers one round before the first that counts. A round in which other processes, or the
machine's other guests, took more than OTHERS of the machine's processor time in one of its sides
does not count; so the figures are those of a quiet machine even where it is not quiet all the time.

One JSON line a case: tokens a second (median of rounds), processor time a token of the server and
of ours, of the server's loop alone (its busiest thread, which reads the proof), and the overhead in
tokens a second and in processor time against `plain` and against `copy`: the ratio of each round
with its own, the quartiles, the median in the middle, and between which two rounds' ratios the
median of all possible rounds lies in 19 of 20 cases (order statistics; no distribution is assumed).
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hanse.engines import EngineRequest, Operation
from hanse.engines.gguf_files import find_packaged_model, prepare_q4_0
from hanse.engines.llama_engine import LlamaEngine, Settings
from hanse.protocol.commitments.copies import COPY_SUFFIX
from hanse.protocol.commitments.fingerprints import ABSENT

CACHE = Path(__file__).parents[1] / ".cache" / "models"
USERS_MAX = 8
ROUNDS_MIN = 3
"""Fewer have no quartiles."""

END_IDS = ("0", "2")
"""SmolLM2's ends of text, forbidden so that all answers are equally long."""

TOPICS = (
    "a robot",
    "steam engines",
    "the sea",
    "Rome",
    "a forest",
    "breakfast",
    "the moon",
    "rain",
)


class UnprovenCopy(LlamaEngine):
    """Serves a copy with its canaries masked, and asks for no proof."""

    def _ask_for_proof(self, body: dict[str, Any], seed: int | None) -> None:
        assert self._copy is not None
        body["logit_bias"] = self._copy.mask(body.get("logit_bias"), False)


def read_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def read_loop_s(pid: int) -> float:
    """Processor time of the busiest thread."""
    return max(
        int(task.joinpath("schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def make_request(user: int, tokens: int) -> EngineRequest:
    content = f"Write a long text about {TOPICS[user % len(TOPICS)]}."
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "seed": user,
        "logit_bias": dict.fromkeys(END_IDS, -100),
    }
    return EngineRequest(operation=Operation.CHAT, body=body, answer_id=f"chatcmpl-{user}")


async def ask(engine: LlamaEngine, user: int, tokens: int) -> tuple[int, int]:
    """Tokens and fingerprints of one answer."""
    count = told = 0
    async for chunk in engine.stream(make_request(user, tokens)):
        count = chunk.usage.output_tokens
        told += sum(entry.fingerprint != ABSENT for entry in chunk.proof)
    return count, told


def read_machine_s() -> float:
    """Processor time that the whole machine has spent, with what its host kept from it."""
    user, nice, system, _, _, hard, soft, steal = (
        int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + hard + soft + steal) / 100


async def measure(engine: LlamaEngine, users: int, tokens: int) -> dict[str, float]:
    assert engine.pid is not None
    server_s, loop_s = read_cpu_s(engine.pid), read_loop_s(engine.pid)
    machine_s, own_s, began = read_machine_s(), time.process_time(), time.perf_counter()
    answers = await asyncio.gather(*(ask(engine, user, tokens) for user in range(users)))
    wall_s = time.perf_counter() - began
    server_s, own_s = read_cpu_s(engine.pid) - server_s, time.process_time() - own_s
    others_s = max(0.0, read_machine_s() - machine_s - server_s - own_s)
    count = sum(answer[0] for answer in answers)
    return {
        "tokens_per_s": count / wall_s,
        "server_ms_per_token": 1e3 * server_s / count,
        "loop_ms_per_token": 1e3 * (read_loop_s(engine.pid) - loop_s) / count,
        "own_ms_per_token": 1e3 * own_s / count,
        "others": others_s / wall_s / (os.cpu_count() or 1),
        "fingerprinted": sum(answer[1] for answer in answers) / count,
    }


def get_quartiles(values: list[float]) -> list[float]:
    return [round(one, 4) for one in statistics.quantiles(values, n=4, method="inclusive")]


def get_bounds(values: list[float]) -> list[float]:
    """Between which of the values the true median lies, with 95 %."""
    place = max(0, math.floor((len(values) - 1.96 * math.sqrt(len(values))) / 2))
    ordered = sorted(values)
    return [round(ordered[place], 4), round(ordered[-1 - place], 4)]


def get_busy_ms(one: dict[str, float]) -> float:
    return one["server_ms_per_token"] + one["own_ms_per_token"]


async def take_turns(
    engines: dict[str, LlamaEngine], users: int, tokens: int, arguments: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    """Rounds until there are enough that count, or the time for them is over."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    counted = turn = 0
    for engine in engines.values():
        await measure(engine, users, tokens)
    began_s = time.monotonic()
    while counted < arguments.rounds and time.monotonic() - began_s < arguments.seconds:
        start = turn % len(engines)
        names = [*engines][start:] + [*engines][:start]
        sides = names if turn % 2 == 0 else reversed(names)
        one = {name: await measure(engines[name], users, tokens) for name in sides}
        turn += 1
        if all(side["others"] <= arguments.others for side in one.values()):
            counted += 1
            for name, side in one.items():
                found[name].append(side)
    print(f"{users} users: {counted} of {turn} rounds count", file=sys.stderr)
    if counted < ROUNDS_MIN:
        sys.exit(f"{counted} rounds say nothing, {ROUNDS_MIN} are the least; wait for a quiet hour")
    return found


def report(users: int, engines: dict[str, LlamaEngine], found: dict[str, Any]) -> None:
    for name, runs in found.items():
        line: dict[str, Any] = {"case": name, "users": users, "rounds": len(runs)}
        line |= {"expf": engines[name].expf, "canaries": engines[name].canaries}
        line |= {key: round(statistics.median(one[key] for one in runs), 4) for key in runs[0]}
        for base in ("plain", "copy", "told", "wrapped"):
            if base == name or base not in found:
                continue
            pairs = list(zip(runs, found[base], strict=True))
            slower = [other["tokens_per_s"] / one["tokens_per_s"] - 1 for one, other in pairs]
            busier = [get_busy_ms(one) / get_busy_ms(other) - 1 for one, other in pairs]
            line[f"overhead_over_{base}"] = get_quartiles(slower)
            line[f"overhead_over_{base}_between"] = get_bounds(slower)
            line[f"processor_over_{base}"] = get_quartiles(busier)
            line[f"processor_over_{base}_between"] = get_bounds(busier)
        print(json.dumps(line), flush=True)


async def run(arguments: argparse.Namespace) -> None:
    copy = Path(arguments.copy)
    plain = Path(arguments.plain or prepare_q4_0(find_packaged_model(), CACHE))
    with tempfile.TemporaryDirectory() as folder:

        def make_settings(path: Path, expf: bool = True, direct: bool = True) -> Settings:
            return Settings(
                cache_dir=folder,
                model_path=str(path),
                parallel=USERS_MAX,
                context_tokens=1_024,
                threads=arguments.threads,
                embeddings=False,
                current_expf=expf,
                direct_canaries=direct,
            )

        sides = {
            "plain": LlamaEngine(make_settings(plain)),
            "copy": UnprovenCopy(make_settings(copy)),
            "proving": LlamaEngine(make_settings(copy)),
            "told": LlamaEngine(make_settings(copy, direct=False)),
            "wrapped": LlamaEngine(make_settings(copy, expf=False, direct=False)),
        }
        engines = {name: sides[name] for name in arguments.sides.split(",")}
        try:
            for engine in engines.values():
                await engine.start()
            for users in (int(each) for each in arguments.users.split(",")):
                tokens = arguments.tokens if users == 1 else arguments.tokens // 2
                report(users, engines, await take_turns(engines, users, tokens, arguments))
        finally:
            for engine in engines.values():
                await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copy", required=True, help=f"a copy, with its {COPY_SUFFIX} beside it")
    parser.add_argument("--plain", default="", help="what it is a copy of; the packaged model")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=math.inf, help="the most for one USERS")
    parser.add_argument("--others", type=float, default=1.0, help="share that others may take")
    parser.add_argument("--users", default=f"1,{USERS_MAX}", help=f"at once, up to {USERS_MAX}")
    parser.add_argument("--sides", default="plain,copy,proving", help="which engines take turns")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not Path(f"{arguments.copy}{COPY_SUFFIX}").is_file():
        sys.exit(f"{arguments.copy} is no copy: {COPY_SUFFIX} is missing; make one: hanse models")
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
