"""What a running vLLM serves, sold by a broker, bought by a gateway and audited by llama.cpp.

Runs where it is asked for, like `tests/engines/test_vllm_running.py`: `make test-vllm`.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.vllm_side import find_python, run_vllm
from hanse.engines.proving.prefill_gguf import GgufPrefill
from hanse.models.copies import CopyOrder, rebase
from hanse.models.copies.folders import rebase_folder
from hanse.models.copies.rebasing import get_description_path
from hanse.verification.audits.calibration import (
    Conditions,
    encode_calibration,
    make_calibration,
)
from tests.cli.auditing.bought_answer import MODEL, add_parties, buy_at_gateway
from tests.models.tiny_models import VOCABULARY, write_tiny_folder

pytestmark = [
    pytest.mark.skipif(not os.environ.get("HANSE_VLLM"), reason="HANSE_VLLM is not set"),
    pytest.mark.skipif(find_python() is None, reason="no vLLM: make test-vllm installs it"),
    pytest.mark.slow,
]

ROOT = "0x" + "11" * 32
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@contextmanager
def serve(copy: Path) -> Iterator[str]:
    with asyncio.Runner() as runner:
        running = run_vllm(copy, "float32", context_tokens=512)
        vllm = runner.run(running.__aenter__())
        try:
            yield vllm.url
        finally:
            runner.run(running.__aexit__(None, None, None))


def write_base(folder: Path) -> Path:
    base = write_tiny_folder(folder, hidden_size=256, intermediate_size=256)
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": TEMPLATE}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    return base


def get_plain(base: Path) -> dict[str, int]:
    """A bias that leaves only tokens of whole ASCII characters; chance would write halves."""
    vocabulary = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    spelled = {token: id_ for token, id_ in vocabulary.items() if token.isascii()}
    kept = {id_ for token, id_ in spelled.items() if not token.startswith("<|")}
    return {str(id_): -100 for id_ in range(VOCABULARY) if id_ not in kept}


def write_thresholds(path: Path, model: Path) -> Path:
    prefill = GgufPrefill(model, context_tokens=64, threads=1)
    labels = ("cache", "concurrent=4", "made for a test")
    conditions = Conditions(ROOT, "F32", "upstream vllm", prefill.runtime, 512, 64, labels)
    prefill.close()
    values = [{"fingerprint/4": 20_000 + 200 * at, "fingerprint/16": 20_000} for at in range(60)]
    path.write_bytes(encode_calibration(make_calibration(conditions, values, 0.95, 0.95)))
    return path


def test_a_bought_answer_of_vllm_is_audited(market, run, tmp_path):
    provider = add_parties(market)
    order = CopyOrder(bytes(range(32)), ROOT, provider)
    base = write_base(tmp_path / "base")
    rebase_folder(base, tmp_path / "copy", order, "F32")
    rebase(base, tmp_path / "own.gguf", order, "F32")
    rebase(base, tmp_path / "other.gguf", CopyOrder(bytes(32), ROOT, provider), "F32")
    with serve(tmp_path / "copy") as url:
        market.start(
            *("provider", "start", "--engine", "upstream", "--model", MODEL, "--port", "0"),
            *("--engine-setting", f"base_url={url}", "--engine-setting", "upstream_model=m"),
            *("--engine-setting", f"copy_description={get_description_path(tmp_path / 'copy')}"),
            *("--engine-setting", "context_tokens=512", "--output-price", "2000", "--register"),
            *("--engine-setting", "continuous_usage=true", "--settle-every", "0"),
        )
        request_id = buy_at_gateway(market, run, provider, get_plain(base))
        arguments = ("audit", "run", request_id, "--threads", "1", "--calibration",
                     str(write_thresholds(tmp_path / "c.json", tmp_path / "own.gguf")))  # fmt: skip
        honest = run(*arguments, "--model", str(tmp_path / "own.gguf"), "--json",
                     "-o", str(tmp_path / "honest.json"))  # fmt: skip
        assert honest.document["verdict"] == "honest", honest.document
        cheat = run(*arguments, "--model", str(tmp_path / "other.gguf"), "--json",
                    "-o", str(tmp_path / "cheat.json"))  # fmt: skip
    assert json.loads(cheat.stderr)["error"]["code"] == "audit_failed"
