"""The broker's attestation: a fresh one for each nonce, bound to its own receipt key."""

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from hanse.protocol.attestation.binding import ATTESTATION_PATH
from hanse.protocol.errors import RequestError, TransientError
from hanse.provider.attesting import Attesting, AttestingSettings, read_attesting_settings
from hanse.provider.attesting.service import WAITING_MAX, open_attesting
from hanse.provider.attesting.sources import (
    Command,
    TsmReports,
    open_quote_source,
    read_tsm_entry,
)
from hanse.verification import attestation as verifier
from tests.provider.broker_parts import PROVIDER, RECEIPT_KEY, selling
from tests.verification.attestation.made_attestations import (
    NONCE,
    Made,
    make_bundle,
    make_gpu_policy,
)
from tests.verification.attestation.made_machine import MachineHere, write_settings
from tests.verification.attestation.made_platform import NOW

REPORT_DATA = bytes(range(64))


class GpusHere:
    async def fetch_evidence(self, nonce: bytes) -> bytes:
        assert nonce.hex() == NONCE[2:]
        return make_bundle()


@pytest.fixture
def settings(tmp_path: Path) -> AttestingSettings:
    return write_settings(tmp_path)


def verify(body: bytes, **policy: object) -> verifier.Attestation:
    nonces = verifier.NonceBook(lambda: NOW, lambda size: bytes.fromhex(NONCE[2:]))
    nonces.issue()
    return verifier.verify_attestation(
        verifier.decode_evidence(body),
        verifier.Expected(PROVIDER, RECEIPT_KEY.address, NONCE),
        verifier.decode_policy(Made(policy=policy).build()[1]),
        nonces,
        NOW,
    )


async def test_a_broker_attests_itself_for_a_nonce(settings):
    attesting = Attesting(settings, PROVIDER, RECEIPT_KEY.address, MachineHere(), GpusHere())
    async with selling(attesting=attesting) as (_, caller):
        reply = await caller.get(ATTESTATION_PATH + NONCE)
        assert reply.status == 200
        attestation = verify(reply.body, **make_gpu_policy())
        assert attestation.image == "made"
        assert len(attestation.gpus) == 2
        wrong = await caller.get(ATTESTATION_PATH + "0x00")
        assert (wrong.status, wrong.error["code"]) == (400, "invalid_request")


async def test_a_broker_without_one_says_so():
    async with selling() as (_, caller):
        reply = await caller.get(ATTESTATION_PATH + NONCE)
        assert (reply.status, reply.error["code"]) == (404, "not_found")


async def test_one_quote_is_made_at_a_time_and_few_wait(settings):
    machine = MachineHere()
    machine.released.clear()
    attesting = Attesting(settings, PROVIDER, RECEIPT_KEY.address, machine)
    waiting = [asyncio.create_task(attesting.attest(NONCE)) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(TransientError) as caught:
        await attesting.attest(NONCE)
    assert caught.value.code == "overloaded"
    machine.released.set()
    assert all(verify(body) for body in await asyncio.gather(*waiting))
    assert verify(await attesting.attest(NONCE))  # there is room again


async def test_a_missing_file_is_said_and_passes(settings, tmp_path):
    attesting = Attesting(settings, PROVIDER, RECEIPT_KEY.address, MachineHere())
    text = (tmp_path / "collateral.json").read_text()
    for spoilt in (None, "{}"):
        (tmp_path / "collateral.json").unlink()
        if spoilt is not None:
            (tmp_path / "collateral.json").write_text(spoilt)
        with pytest.raises(TransientError) as caught:
            await attesting.attest(NONCE)
        assert caught.value.code == "engine_unavailable"
        (tmp_path / "collateral.json").write_text(text)
    assert verify(await attesting.attest(NONCE))


PRINTS_ITS_ARGUMENT = [sys.executable, "-c", "import sys; print(sys.argv[1], end='')"]


async def test_a_command_gets_report_data_or_nonce_and_prints():
    command = Command(PRINTS_ITS_ARGUMENT)
    assert await command.fetch_quote(REPORT_DATA) == REPORT_DATA.hex().encode()
    assert await command.fetch_evidence(bytes(32)) == b"00" * 32


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(3)",
        "pass",
        "import sys; sys.stdout.write('x' * 2_000_000)",
    ],
    ids=["fails", "prints nothing", "prints too much"],
)
async def test_a_command_that_gives_no_quote(program):
    with pytest.raises(TransientError):
        await Command([sys.executable, "-c", program]).fetch_quote(REPORT_DATA)


async def test_a_command_that_never_ends_is_ended():
    command = Command([sys.executable, "-c", "import time; time.sleep(100)"], most_s=0.05)
    with pytest.raises(TransientError):
        await command.fetch_quote(REPORT_DATA)


async def test_a_command_that_is_not_there():
    with pytest.raises(TransientError):
        await Command(["no-such-program-anywhere"]).fetch_quote(REPORT_DATA)


class Kernel:
    """An entry of configfs-tsm out of pipes: what is written raises the generation."""

    def __init__(
        self, entry: Path, maker: str = "tdx_guest", steps: tuple[int, ...] = (1,)
    ) -> None:
        self.entry, self.steps = entry, steps
        (entry / "provider").write_text(maker + "\n")
        (entry / "generation").write_text("4\n")
        for name in ("inblob", "outblob"):
            os.mkfifo(entry / name)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        for step in self.steps:
            data = (self.entry / "inblob").read_bytes()
            generation = int((self.entry / "generation").read_text())
            (self.entry / "generation").write_text(f"{generation + step}\n")
            (self.entry / "outblob").write_bytes(b"quote of " + data)


def test_an_entry_of_the_kernel_is_written_and_read(tmp_path):
    Kernel(tmp_path)
    assert read_tsm_entry(tmp_path, REPORT_DATA) == b"quote of " + REPORT_DATA


def test_a_quote_over_somebody_elses_data_is_made_again(tmp_path):
    Kernel(tmp_path, steps=(2, 1))
    assert read_tsm_entry(tmp_path, REPORT_DATA) == b"quote of " + REPORT_DATA


def test_an_entry_that_others_always_write_to_gives_none(tmp_path):
    Kernel(tmp_path, steps=(2, 2, 2))
    with pytest.raises(TransientError):
        read_tsm_entry(tmp_path, REPORT_DATA)


def test_another_kind_of_machine_gives_none(tmp_path):
    Kernel(tmp_path, maker="sev_guest")
    with pytest.raises(TransientError):
        read_tsm_entry(tmp_path, REPORT_DATA)


async def test_a_folder_that_is_no_kernels_gives_none_and_is_left_clean(tmp_path):
    with pytest.raises(TransientError):
        await TsmReports(tmp_path).fetch_quote(REPORT_DATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{}", '{"quotes": "sgx", "collateral": "c"}', '{"quotes": [], "collateral": "c"}']
)
def test_settings_that_cannot_be_meant(tmp_path, text):
    (tmp_path / "attest.json").write_text(text)
    with pytest.raises(RequestError) as caught:
        read_attesting_settings(tmp_path / "attest.json")
    assert caught.value.code == "configuration_invalid"


def test_a_machine_without_tdx_is_found_out_at_the_start(tmp_path):
    settings = AttestingSettings("tsm", "collateral.json")
    with pytest.raises(RequestError) as caught:
        open_quote_source(settings, tmp_path / "none")
    assert caught.value.code == "configuration_invalid"
    assert isinstance(open_quote_source(settings, tmp_path), TsmReports)


def test_what_the_settings_say_is_opened():
    assert open_attesting(None, PROVIDER, RECEIPT_KEY.address) is None
    command = AttestingSettings(["quote"], "collateral.json", gpu=["gpu"])
    assert open_attesting(command, PROVIDER, RECEIPT_KEY.address) is not None
