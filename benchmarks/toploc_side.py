"""TOPLOC as a peer: installed in an environment of its own under .cache/peers, and asked there.

A tool of the benchmark only; nothing of Hanse imports it. It comes as source that is compiled
against torch (three minutes), so torch is installed first and the build sees that one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import FOLDER

TOPLOC = "toploc==0.1.6"
BUILT_WITH = ("torch==2.13.0", "numpy==2.4.6", "setuptools", "wheel", "ninja")

WORKER = Path(__file__).with_name("toploc_worker.py")

EXPONENTS, MEAN, MEDIAN = 38, 10.0, 8.0
"""Above one of these a proof does not hold: the thresholds that TOPLOC's paper (arXiv 2501.16007)
gives for bfloat16. The package itself has none, it leaves them to whoever calls it."""


def run_toploc(folder: Path) -> list[dict[str, Any]]:
    """What the package says of each answer in a folder, on one core."""
    environment = {
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
    }
    done = subprocess.run(
        [str(_install()), str(WORKER), str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _install() -> Path:
    folder = FOLDER / "toploc"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = " ".join((TOPLOC, *BUILT_WITH))
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"building {TOPLOC} in an environment of its own, once", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, *BUILT_WITH], check=True, stdout=sys.stderr)
        # no cached wheel: one that was built against another torch does not load
        fresh = ["--no-cache-dir", "--no-build-isolation", "--no-deps", "--force-reinstall"]
        subprocess.run([*pip, *fresh, TOPLOC], check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    return python
