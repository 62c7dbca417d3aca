"""What verifying an attestation takes in processor time; one JSON line a case.

    make bench-attestation

The real quote is a public sample to Intel's root; the whole attestation, with a boot log of 43
events and two application events, is of the platform that the tests make.
"""

import json
import sys
import time
from collections.abc import Callable

import msgspec

import hanse.verification.attestation as verifier
from hanse.verification.attestation import Collateral, verify_quote
from tests.verification.attestation.made_attestations import (
    DATA,
    Made,
    make_bundle,
    make_gpu_policy,
    run,
)

IN_JUNE_2025 = 1_750_400_000
RUNS = 300


def measure(case: str, work: Callable[[], object]) -> None:
    work()
    began = time.process_time()
    for _ in range(RUNS):
        work()
    each_ms = (time.process_time() - began) / RUNS * 1_000
    json.dump({"case": case, "cpu_ms": round(each_ms, 2), "runs": RUNS}, sys.stdout)
    print(flush=True)


def main() -> None:
    quote = (DATA / "tdx_quote").read_bytes()
    text = (DATA / "tdx_quote_collateral.json").read_bytes()
    collateral = msgspec.json.decode(text, type=Collateral)
    measure("a real quote to Intel's root", lambda: verify_quote(quote, collateral, IN_JUNE_2025))
    for case, made in (
        ("a whole attestation", Made()),
        ("with two GPUs", Made(gpu=make_bundle(), policy=make_gpu_policy())),
    ):
        built = made.build()
        measure(case, lambda made=made, built=built: run(verifier, made, built))  # type: ignore[misc]


if __name__ == "__main__":
    main()
