"""The real wheel of llama.cpp's server, loaded by a process of its own, which may change it."""

import json
import platform
import subprocess
import sys
from typing import Any

import pytest

on_glibc = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="pointers of the wheel are set on glibc on x86-64 only",
)


def run_beside_wheel(program: str) -> Any:
    """What this program prints, as JSON; its first argument is the wheel's library."""
    import xllamacpp

    ran = subprocess.run(
        [sys.executable, "-c", program, xllamacpp.xllamacpp.__file__],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(ran.stdout)
