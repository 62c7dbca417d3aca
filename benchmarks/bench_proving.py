"""What carrying the proof costs the embedded engine: `make bench-proving COPY=file.gguf`.

Three engines take turns at 1 and at 8 users, round by round, so that a busy machine troubles all
alike:

    plain     the model as it is
    copy      the provider's copy, its canaries masked, no proof: what the copy itself costs
    proving   the copy with its proof asked for, read, and taken out of the frames

One JSON line a case: tokens a second (median of rounds), processor time a token of the server and
of ours, of the server's loop alone (its busiest thread, which reads the proof), and the overhead
against `plain` and against `copy`, each round with its own: quartiles, the median in the middle.
"""

import argparse
import asyncio
import json
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
USERS = (1, 8)
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


async def measure(engine: LlamaEngine, users: int, tokens: int) -> dict[str, float]:
    assert engine.pid is not None
    server_s, loop_s = read_cpu_s(engine.pid), read_loop_s(engine.pid)
    own_s, began = time.process_time(), time.perf_counter()
    answers = await asyncio.gather(*(ask(engine, user, tokens) for user in range(users)))
    wall_s = time.perf_counter() - began
    count = sum(answer[0] for answer in answers)
    return {
        "tokens_per_s": count / wall_s,
        "server_ms_per_token": 1e3 * (read_cpu_s(engine.pid) - server_s) / count,
        "loop_ms_per_token": 1e3 * (read_loop_s(engine.pid) - loop_s) / count,
        "own_ms_per_token": 1e3 * (time.process_time() - own_s) / count,
        "fingerprinted": sum(answer[1] for answer in answers) / count,
    }


def get_quartiles(values: list[float]) -> list[float]:
    return [round(one, 4) for one in statistics.quantiles(values, n=4, method="inclusive")]


async def compare(engines: dict[str, LlamaEngine], rounds: int, tokens: int) -> None:
    for users in USERS:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
        each = tokens if users == 1 else tokens // 2
        for turn in range(rounds):
            names = list(engines)[turn % len(engines) :] + list(engines)[: turn % len(engines)]
            for name in names:
                found[name].append(await measure(engines[name], users, each))
        medians = {
            name: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
            for name, runs in found.items()
        }
        for name, values in medians.items():
            line: dict[str, Any] = {"case": name, "users": users}
            line |= {key: round(value, 4) for key, value in values.items()}
            for base in ("plain", "copy"):
                slower = [
                    other["tokens_per_s"] / one["tokens_per_s"] - 1
                    for one, other in zip(found[name], found[base], strict=True)
                ]
                line[f"overhead_over_{base}"] = get_quartiles(slower)
            print(json.dumps(line), flush=True)


async def run(arguments: argparse.Namespace) -> None:
    copy = Path(arguments.copy)
    plain = Path(arguments.plain or prepare_q4_0(find_packaged_model(), CACHE))
    with tempfile.TemporaryDirectory() as folder:

        def make_settings(path: Path) -> Settings:
            return Settings(
                cache_dir=folder,
                model_path=str(path),
                parallel=max(USERS),
                context_tokens=1_024,
                threads=arguments.threads,
                embeddings=False,
            )

        engines = {
            "plain": LlamaEngine(make_settings(plain)),
            "copy": UnprovenCopy(make_settings(copy)),
            "proving": LlamaEngine(make_settings(copy)),
        }
        try:
            for engine in engines.values():
                await engine.start()
                await measure(engine, max(USERS), 8)
            await compare(engines, arguments.rounds, arguments.tokens)
        finally:
            for engine in engines.values():
                await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copy", required=True, help=f"a copy, with its {COPY_SUFFIX} beside it")
    parser.add_argument("--plain", default="", help="what it is a copy of; the packaged model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not Path(f"{arguments.copy}{COPY_SUFFIX}").is_file():
        sys.exit(f"{arguments.copy} is no copy: {COPY_SUFFIX} is missing; make one: hanse models")
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
