"""The server of cold storage: a measurement whose server is gone is an error, not a silence."""

import subprocess
import sys

import pytest

from hanse.contracts import load_artifact
from tests.contracts import cold_gas
from tests.contracts.local_evm import Hanse, Key
from tests.contracts.state_server import StateServer

WAITED_S = 60

_PROGRAM = """
import os
from tests.contracts.state_server import StateServer
server = StateServer()
print(server._process.pid, flush=True)
os._exit(0)
"""


def test_without_its_server_a_measurement_fails(
    bare: Hanse, attacker: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = StateServer()
    monkeypatch.setattr(cold_gas, "_open_server", lambda: gone)
    data = load_artifact("Records").encode_call("commit", b"\1" * 32, 1, 1)
    assert bare.chain.gas_of(attacker.address, bare.records, data) > cold_gas.INTRINSIC_GAS
    monkeypatch.setattr(gone, "replace", lambda state: None)
    gone.close()
    with pytest.raises(RuntimeError):
        bare.chain.gas_of(attacker.address, bare.records, data)


def test_the_server_ends_with_who_started_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, check=True, timeout=WAITED_S
    )
    # it has the same standard error, whose end this has waited for
    assert int(ran.stdout)
