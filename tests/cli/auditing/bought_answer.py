"""An answer of a tiny copy, sold and bought by the real commands, and thresholds to judge it by."""

import hashlib
import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

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
from tests.cli.local_market import wait_until

MODEL = "tiny"
PLAIN = {str(3 + byte): -100 for byte in range(128, 256)} | {"0": -100, "1": -100, "2": -100}
"""Weights made by chance write halves of characters, and end anywhere; here neither."""


def add_parties(market: Any) -> str:
    """A provider with its receipt key, and a user, each with money; the provider's address."""
    provider: str = market.add_key("provider", units=200)
    market.add_key("provider-receipt")
    market.add_key("user", units=50)
    return provider


def bind(path: Path, provider: str, source: Path) -> Path:
    """A tiny copy whose description says that it is this provider's, of the first one's base."""
    description = decode_copy_description(
        (source.with_name(source.name + COPY_SUFFIX)).read_bytes()
    )
    digest = "0x" + hashlib.sha256(path.read_bytes()).hexdigest()
    bound = msgspec.structs.replace(description, provider=provider, file_sha256=digest)
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


def ask(base_url: str, key: str, bias: dict[str, int] = PLAIN) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is a tide?"}],
        "max_tokens": 30,
        "logit_bias": bias,
    }
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def buy_from(market: Any, run: Any, provider: str, copy: Path, *options: str) -> str:
    """Sell by this copy, with these options besides, and buy one answer; returns its request id."""
    market.start(
        *("provider", "start", "--engine", "llama", "--model", MODEL, "--port", "0"),
        *("--engine-setting", f"model_path={copy}", "--engine-setting", "context_tokens=512"),
        *("--output-price", "2000", "--register", "--settle-every", "0", "--threads", "1"),
        *options,
    )
    return buy_at_gateway(market, run, provider)


def buy_at_gateway(market: Any, run: Any, provider: str, bias: dict[str, int] = PLAIN) -> str:
    """Buy one answer of the model that is sold already; returns its request id."""
    assert run("account", "open", "--deposit", "20", f"{provider}=15", "--json").exit_code == 0
    key = run("gateway", "keys", "create", "test", "--json").document["api_key"]
    gateway, document = market.start(
        "gateway", "start", "--port", "0", "--traces", str(market.home / "traces")
    )
    ask(document["base_url"], key, bias)
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
    return str(note["request_id"])
