"""A machine that attests itself: the platform that the tests make, in place of a TDX guest."""

import asyncio
import json
from pathlib import Path

from hanse.provider.attesting import Attesting, AttestingSettings
from tests.verification.attestation.made_attestations import BOOT_LOG, EVENTS, Made
from tests.verification.attestation.made_platform import make_platform


class MachineHere:
    """Makes quotes, one at a time, once `released`; `measured` is what runs there."""

    measured = "33" * 48

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.released.set()
        self.at_work = 0

    async def fetch_quote(self, report_data: bytes) -> bytes:
        self.at_work += 1
        assert self.at_work == 1, "one quote is made at a time"
        await self.released.wait()
        self.at_work -= 1
        registers = dict(zip([f"rtmr{i}" for i in range(4)], Made().replay(), strict=True))
        measured = registers | {"mr_td": self.measured}
        return make_platform().make_quote(report_data, measured=measured)


def write_settings(folder: Path) -> AttestingSettings:
    """The files beside a quote, and the settings that name them."""
    (folder / "collateral.json").write_text(make_platform().make_collateral().to_json())
    (folder / "ccel").write_bytes(BOOT_LOG + b"\xff" * 10_000)
    events = [{"name": name, "payload": payload} for name, payload in EVENTS]
    (folder / "events.json").write_text(json.dumps(events))
    names = ("collateral.json", "ccel", "events.json")
    return AttestingSettings("tsm", *(str(folder / name) for name in names))


def make_attesting(
    folder: Path, provider: str, receipt_key: str, machine: MachineHere
) -> Attesting:
    """The broker's service over such a machine."""
    return Attesting(write_settings(folder), provider, receipt_key, machine)
