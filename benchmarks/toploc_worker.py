"""TOPLOC's own package at work, in an environment of its own; started by `toploc_side`.

    python toploc_worker.py FOLDER

FOLDER holds one `.npz` an answer: `provider` and `verifier-NAME`, states as `toploc_states` gives
them, with the number of the prompt's rows of each (`provider_prompt`, `prompt`). On standard output
one JSON line an answer: bytes, times, and for each verifier what the package's own
`verify_proofs_bytes` says of each proof, the prompt's first.

Everything of TOPLOC's is as its documentation has it: bfloat16, the 128 largest values, one proof
for the prompt and one for each 32 tokens. It imports nothing of Hanse's.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from toploc import build_proofs_bytes, verify_proofs_bytes

TOPK, TOKENS = 128, 32
REPEATS = 5


def split(states: np.ndarray, prompt: int) -> list[torch.Tensor]:
    """The prompt's states together, then one tensor a token: what a hook on the norm collects."""
    whole = torch.from_numpy(states).to(torch.bfloat16)
    return [whole[:prompt], *whole[prompt:]]


def build(states: list[torch.Tensor]) -> list[bytes]:
    return build_proofs_bytes(states, decode_batching_size=TOKENS, topk=TOPK, skip_prefill=False)


def verify(states: list[torch.Tensor], proofs: list[bytes]) -> list[tuple[int, float, float]]:
    found = verify_proofs_bytes(
        states, proofs, decode_batching_size=TOKENS, topk=TOPK, skip_prefill=False
    )
    return [(one.exp_mismatches, one.mant_err_mean, one.mant_err_median) for one in found]


def take_time(work: object, *arguments: object) -> tuple[object, float]:
    """The result, and the least processor time of a few runs."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        result = work(*arguments)  # type: ignore[operator]
        times.append(time.process_time() - began)
    return result, min(times)


def main() -> None:
    torch.set_num_threads(1)
    for path in sorted(Path(sys.argv[1]).glob("*.npz")):
        data = np.load(path)
        provider = split(data["provider"], int(data["provider_prompt"]))
        proofs, build_s = take_time(build, provider)
        line = {
            "name": path.stem,
            "tokens": len(provider),
            "bytes": sum(map(len, proofs)),
            "build_s": build_s,
            "verify_s": 0.0,
            "found": {},
        }
        for key in (name for name in data.files if name.startswith("verifier-")):
            verifier = split(data[key], int(data["prompt"]))
            found, line["verify_s"] = take_time(verify, verifier, proofs)
            line["found"][key.removeprefix("verifier-")] = found
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
