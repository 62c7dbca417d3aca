"""`hanse audit` on a real chain: an answer of a copy is bought, audited, and its evidence rerun."""

import json
import signal
import urllib.request
from pathlib import Path

import msgspec
import pytest

from hanse.engines.proving.prefill_gguf import GgufPrefill
from hanse.protocol.commitments.copies import (
    COPY_SUFFIX,
    decode_copy_description,
    encode_copy_description,
)
from hanse.verification.audits.calibration import (
    Conditions,
    encode_calibration,
    make_calibration,
)
from tests.cli.local_market import open_market, wait_until
from tests.engines.tiny_copy import make_copy

MODEL = "tiny"
PLAIN = {str(3 + byte): -100 for byte in range(128, 256)} | {"0": -100, "1": -100, "2": -100}
"""Weights made by chance write halves of characters, and end anywhere; here neither."""


@pytest.fixture(scope="module")
def market(anvil, tmp_path_factory):
    with open_market(tmp_path_factory.mktemp("market"), anvil) as opened:
        yield opened


@pytest.fixture
def home(market):
    return market.home


def bind(path: Path, provider: str, source: Path) -> Path:
    """A tiny copy whose description says that it is this provider's, of the first one's base."""
    description = decode_copy_description(
        (source.with_name(source.name + COPY_SUFFIX)).read_bytes()
    )
    bound = msgspec.structs.replace(description, provider=provider)
    path.with_name(path.name + COPY_SUFFIX).write_bytes(encode_copy_description(bound))
    return path


def write_calibration(path: Path, copy: Path) -> Path:
    """Thresholds of the order that `tests/engines/test_prefill.py` sees between these two."""
    description = decode_copy_description((copy.with_name(copy.name + COPY_SUFFIX)).read_bytes())
    prefill = GgufPrefill(copy, context_tokens=64, threads=1)
    labels = ("cache", "concurrent=4", "made for a test")
    conditions = Conditions(
        description.base_root, "F32", "llama test", prefill.runtime, 512, 64, labels
    )
    prefill.close()
    values = [{"fingerprint/4": 20_000 + 200 * at, "fingerprint/16": 20_000} for at in range(60)]
    path.write_bytes(encode_calibration(make_calibration(conditions, values, 0.95, 0.95)))
    return path


def ask(base_url: str, key: str) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is a tide?"}],
        "max_tokens": 30,
        "logit_bias": PLAIN,
    }
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.slow
def test_a_bought_answer_is_audited_and_a_swap_is_evidence(market, run, tmp_path):
    provider = market.add_key("provider", units=200)
    market.add_key("provider-receipt")
    market.add_key("user", units=50)
    first = make_copy(tmp_path / "copy.gguf")
    copy = bind(first, provider, first)
    other = bind(make_copy(tmp_path / "other.gguf", seed=2), provider, first)
    _, _ = market.start(
        *("provider", "start", "--engine", "llama", "--model", MODEL, "--port", "0"),
        *("--engine-setting", f"model_path={copy}", "--engine-setting", "context_tokens=512"),
        *("--output-price", "2000", "--register", "--settle-every", "0", "--threads", "1"),
    )
    assert run("account", "open", "--deposit", "20", f"{provider}=15", "--json").exit_code == 0
    key = run("gateway", "keys", "create", "test", "--json").document["api_key"]
    gateway, document = market.start(
        "gateway", "start", "--port", "0", "--traces", str(market.home / "traces")
    )
    ask(document["base_url"], key)
    wait_until(
        lambda: (
            [one["state"] for one in run("traces", "list", "--json").document["traces"]]
            == ["stored"]
        ),
        "a trace",
    )
    gateway.send_signal(signal.SIGTERM)
    gateway.wait(30)
    (note,) = run("traces", "list", "--json").document["traces"]
    arguments = ("audit", "run", note["request_id"], "--threads", "1", "--calibration",
                 str(write_calibration(tmp_path / "calibration.json", copy)))  # fmt: skip

    honest = tmp_path / "honest.json"
    ran = run(*arguments, "--model", str(copy), "-o", str(honest), "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.document["verdict"] == "honest", ran.document
    assert {one["statistic"] for one in ran.document["findings"]} == {
        "fingerprint/4", "fingerprint/16"
    }  # fmt: skip
    again = run("audit", "replay", str(honest), "--model", str(copy), "--json")
    assert again.exit_code == 0, again.stderr
    assert again.document["replay"]["agrees"] is True
    assert again.document["replay"]["distance_ppm"] == 0

    # to an auditor with the promised weights, the answer of other ones looks like this
    cheat = tmp_path / "cheat.json"
    other_file = json.loads((other.with_name(other.name + COPY_SUFFIX)).read_text())
    assert other_file["provider"] == provider
    ran = run(*arguments, "--model", str(other), "-o", str(cheat), "--json")
    assert ran.exit_code == 8
    assert json.loads(ran.stderr)["error"]["code"] == "audit_failed"
    again = run("audit", "replay", str(cheat), "--model", str(copy), "--json")
    assert again.exit_code == 8, "the rerun with the true copy says honest"
    (summed,) = run("audit", "report", str(honest), "--json").document["providers"]
    assert (summed["provider"], summed["honest"]) == (provider, 1)
