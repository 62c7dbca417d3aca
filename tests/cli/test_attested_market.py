"""`hanse provider start --attest` and `hanse match`: an attested provider, end to end.

Quotes come by a command, from the platform of the tests, which stands in for a TDX machine.
"""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hanse.cli.buying.attestation_policy import POLICY_FILE
from tests.cli.local_market import open_market
from tests.verification.attestation.made_attestations import BOOT_LOG, EVENTS, Made
from tests.verification.attestation.made_platform import make_platform

MODEL = "echo-1"
ASKS_FOR_A_QUOTE = (
    "import sys, urllib.request as u; "
    "sys.stdout.buffer.write(u.urlopen(sys.argv[1] + '/' + sys.argv[2]).read())"
)


@pytest.fixture
def machine() -> Iterator[str]:
    """Where the command gets its quotes: this process has the platform's keys."""
    platform = make_platform()
    registers = dict(zip([f"rtmr{i}" for i in range(4)], Made().replay(), strict=True))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            quote = platform.make_quote(
                bytes.fromhex(self.path[1:]), measured=registers | {"mr_td": "33" * 48}
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(quote)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def write_attesting(folder: Path, machine: str) -> Path:
    (folder / "collateral.json").write_text(
        make_platform().at_present().make_collateral().to_json()
    )
    (folder / "ccel").write_bytes(BOOT_LOG)
    events = [{"name": name, "payload": payload} for name, payload in EVENTS]
    (folder / "events.json").write_text(json.dumps(events))
    path = folder / "attest.json"
    path.write_text(
        json.dumps(
            {
                "quotes": [sys.executable, "-c", ASKS_FOR_A_QUOTE, machine],
                "collateral": str(folder / "collateral.json"),
                "boot_log": str(folder / "ccel"),
                "events": str(folder / "events.json"),
            }
        )
    )
    return path


@pytest.mark.slow
def test_an_attested_provider_is_asked_by_a_policy_and_by_none_other(
    anvil, run, machine, tmp_path, tmp_path_factory
):
    with open_market(tmp_path_factory.mktemp("market"), anvil) as market:
        market.add_key("provider", units=200)
        market.add_key("provider-receipt")
        market.start(
            *("provider", "start", "--engine", "echo", "--model", MODEL, "--port", "0"),
            *("--register", "--attest", str(write_attesting(tmp_path, machine))),
        )

        def explain() -> dict[str, object]:
            home = str(market.home)
            ran = run("match", "-m", MODEL, "--explain", "--json", HANSE_HOME=home)
            return json.loads(ran.stdout)

        found = explain()
        assert found["provider"] is None
        assert "attestation policy" in found["left_out"][0]["reason"]

        policy = market.home / POLICY_FILE
        lasting = {"collateral_age_max_s": 10**9}  # the lists of the tests are old by now
        policy.write_bytes(Made(policy=lasting).build()[1])
        assert explain()["why"] == "best"

        policy.write_bytes(Made(policy=lasting, image={"mr_td": "44" * 48}).build()[1])
        found = explain()
        assert found["left_out"][0]["kind"] == "attestation"
        assert "attestation_measurement_refused" in found["left_out"][0]["reason"]
