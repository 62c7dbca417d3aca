"""Where a broker gets its quotes from, and the settings file that says so.

    {"quotes": "tsm", "collateral": "collateral.json",
     "boot_log": "/sys/firmware/acpi/tables/data/CCEL", "events": "events.json"}

- `quotes` is `tsm`, the kernel's configfs-tsm on a TDX machine (Linux 6.7), or a list, the command
  that prints a quote: it gets the report data as 128 hexadecimal digits behind its arguments.
- `collateral` is a file that somebody keeps fresh; `hanse attest collateral` writes it.
- `boot_log` and `events` are what replays to the registers; `gpu`, a command like the above, gets
  the nonce as 64 digits and prints the bundle of NVIDIA's service.

Files are read for each attestation, so that fresh ones count without a restart. The kernel's way
was written from its documentation and tried on a folder that behaves like it: no machine with TDX
was at hand.

Source: Linux, `Documentation/ABI/testing/configfs-tsm-report`.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import threading
from pathlib import Path
from typing import Protocol

import msgspec

from hanse.protocol.errors import RequestError, TransientError

TSM_FOLDER = Path("/sys/kernel/config/tsm/report")
TDX_PROVIDER = "tdx_guest"
OUTPUT_BYTES_MAX = 1024 * 1024
"""Of a command; a quote has 5 to 8 kB, a bundle of tokens 20 kB for each GPU."""

COMMAND_S = 60.0
"""NVIDIA's service takes seconds; a quote milliseconds."""

WRITES_MAX = 3
"""Attempts at a quote while others write to the same entry; ours has a name of its own."""


class QuoteSource(Protocol):
    """Makes quotes on the machine that the broker runs on."""

    async def fetch_quote(self, report_data: bytes) -> bytes:
        """A quote over 64 bytes of report data.

        Raises:
            TransientError: `engine_unavailable`: the machine gives none now.
        """
        ...


class GpuSource(Protocol):
    """Gets evidence of the machine's GPUs."""

    async def fetch_evidence(self, nonce: bytes) -> bytes:
        """A bundle of tokens for a nonce of 32 bytes.

        Raises:
            TransientError: `engine_unavailable`.
        """
        ...


class AttestingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the module; paths are relative to where the broker was started."""

    quotes: str | list[str]
    collateral: str
    boot_log: str = ""
    events: str = ""
    gpu: list[str] = []


def read_attesting_settings(path: Path) -> AttestingSettings:
    """The settings of a file.

    Raises:
        RequestError: `configuration_invalid`.
    """
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=AttestingSettings)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError("configuration_invalid", f"{path}: {error}"[:300]) from None
    if not settings.quotes or (isinstance(settings.quotes, str) and settings.quotes != "tsm"):
        raise RequestError(
            "configuration_invalid",
            f"{path}: quotes is {settings.quotes!r:.60}, not tsm or a command as a list",
        )
    return settings


def open_quote_source(settings: AttestingSettings, tsm_folder: Path = TSM_FOLDER) -> QuoteSource:
    """Where the settings say that quotes come from.

    Raises:
        RequestError: `configuration_invalid` if the machine has no configfs-tsm.
    """
    if isinstance(settings.quotes, list):
        return Command(settings.quotes)
    if not tsm_folder.is_dir():
        raise RequestError(
            "configuration_invalid",
            f"{tsm_folder} is not there: this machine is no TDX guest, or its kernel lacks "
            "configfs-tsm; name a command that prints quotes instead",
        )
    return TsmReports(tsm_folder)


class TsmReports:
    """The kernel's own interface: a folder that is made, written to and read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def fetch_quote(self, report_data: bytes) -> bytes:
        """See `QuoteSource`."""
        return await asyncio.to_thread(self._make, report_data)

    def _make(self, report_data: bytes) -> bytes:
        entry = self._folder / f"hanse-{secrets.token_hex(8)}"
        try:
            entry.mkdir()
            try:
                return read_tsm_entry(entry, report_data)
            finally:
                with contextlib.suppress(OSError):
                    entry.rmdir()  # as the kernel wants it: its files go with it
        except OSError as error:
            raise _unavailable(f"{self._folder}: {os.strerror(error.errno or 0)}") from None


def read_tsm_entry(entry: Path, report_data: bytes) -> bytes:
    """A quote from an entry of the kernel's folder.

    The entry counts what is written to it: if that is not one more, somebody else's data is in it.

    Raises:
        TransientError: `engine_unavailable`.
    """
    for _ in range(WRITES_MAX):
        before = int((entry / "generation").read_text())
        (entry / "inblob").write_bytes(report_data)
        quote = (entry / "outblob").read_bytes()
        if int((entry / "generation").read_text()) == before + 1:
            maker = (entry / "provider").read_text().strip()
            if maker != TDX_PROVIDER:
                raise _unavailable(f"its quotes are of {maker!r:.40}, not of {TDX_PROVIDER}")
            return quote
    raise _unavailable("others write to the kernel's entry all the time")


class Command:
    """A program that prints a quote, or a GPU's evidence."""

    def __init__(self, argv: list[str], most_s: float = COMMAND_S) -> None:
        self._argv, self._most_s = argv, most_s

    async def fetch_quote(self, report_data: bytes) -> bytes:
        """See `QuoteSource`."""
        return await self._run(report_data.hex())

    async def fetch_evidence(self, nonce: bytes) -> bytes:
        """See `GpuSource`."""
        return await self._run(nonce.hex())

    async def _run(self, argument: str) -> bytes:
        name = Path(self._argv[0]).name
        try:
            status, output = await asyncio.to_thread(
                _run_within, [*self._argv, argument], self._most_s
            )
        except OSError as error:
            raise _unavailable(f"{name}: {os.strerror(error.errno or 0)}") from None
        if status != 0 or not 0 < len(output) <= OUTPUT_BYTES_MAX:
            raise _unavailable(f"{name} ended with {status} and {len(output)} bytes or more")
        return output


def _run_within(argv: list[str], most_s: float) -> tuple[int, bytes]:
    """Exit status and output of a program; it and its children end when time or bytes are over.

    In a thread with its own pipe: asyncio's process waits for ever for one whose output nobody
    reads to its end.
    """
    with subprocess.Popen(  # noqa: S603 - the operator's own command, and no shell
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # it was asked for above

        def end() -> None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(most_s, end)
        timer.start()
        try:
            output = process.stdout.read(OUTPUT_BYTES_MAX + 1)
            if len(output) > OUTPUT_BYTES_MAX:
                end()
            return process.wait(), output
        finally:
            timer.cancel()


def _unavailable(what: str) -> TransientError:
    return TransientError("engine_unavailable", f"no quote can be had: {what}", retry_after_s=10.0)
