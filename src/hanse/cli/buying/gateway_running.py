"""Which gateways of this home are running, and asking them to read their file anew.

Each keeps a file in the home's `run` folder, locked while it lives: a lock, unlike a process id,
cannot be taken for another process's.
"""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from hanse.cli.buying.gateway_options import read_file
from hanse.protocol.errors import RequestError


@dataclass(frozen=True)
class RunningGateway:
    """One gateway: its process, and the file of its settings, empty if it has none."""

    pid: int
    config: str


@contextlib.contextmanager
def show_running(home: Path, config: Path | None) -> Iterator[None]:
    """Be found by `list_running` until the end of the block."""
    folder = home / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"gateway-{os.getpid()}.json"
    shown = RunningGateway(os.getpid(), "" if config is None else str(config.resolve()))
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode(shown))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def list_running(home: Path) -> list[RunningGateway]:
    """Every gateway of this home that lives; files of those that were killed are removed."""
    found = []
    for path in sorted((home / "run").glob("gateway-*.json")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(msgspec.json.decode(file.read(), type=RunningGateway))
            else:
                path.unlink(missing_ok=True)
    return found


def reload_running(home: Path, start: click.Command) -> list[RunningGateway]:
    """Check the file of every gateway that runs here, and ask them to read it anew.

    Raises:
        RequestError: `not_found` if none runs with a file; `configuration_invalid` for a mistake.
    """
    running = [gateway for gateway in list_running(home) if gateway.config]
    if not running:
        raise RequestError(
            "not_found",
            "no gateway of this home runs with a file of settings; start one with: "
            "hanse gateway start --config FILE",
        )
    for gateway in running:
        read_file(start, Path(gateway.config))
    for gateway in running:
        os.kill(gateway.pid, signal.SIGHUP)
    return running
