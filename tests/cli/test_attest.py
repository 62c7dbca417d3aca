"""`hanse attest`: a good attestation, bad ones, a policy to begin with, and collateral."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.verification.attestation.made_attestations import (
    NONCE,
    OTHER,
    OTHER_NONCE,
    Made,
    make_bundle,
    make_gpu_policy,
)
from tests.verification.attestation.made_platform import NOW

DATA = Path(__file__).parents[1] / "verification" / "attestation" / "data"
COLLATERAL = DATA / "tdx_quote_collateral.json"
IN_JUNE_2025 = "1750400000"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """An attestation and the policy that allows it."""
    return write(tmp_path, Made(gpu=make_bundle(), policy=make_gpu_policy()))


def write(folder: Path, made: Made) -> tuple[str, str]:
    names = (folder / "attestation.json", folder / "policy.json")
    for path, data in zip(names, made.build(), strict=True):
        path.write_bytes(data)
    return str(names[0]), str(names[1])


def test_a_good_attestation(files, run):
    evidence, policy = files
    options = ("--policy", policy, "--nonce", NONCE, "--at", str(NOW))
    ran = run("attest", "verify", evidence, *options, "--json")
    assert ran.exit_code == 0, ran.stderr
    shown = json.loads(ran.stdout)
    assert (shown["verified"], shown["image"], shown["is_of_intel"]) == (True, "made", False)
    assert [gpu["name"] for gpu in shown["gpus"]] == ["GPU-0", "GPU-1"]
    assert [event["name"] for event in shown["events"]] == ["manifest", "engine"]
    said = run("attest", "verify", evidence, *options)
    assert "NOT INTEL" in said.stderr
    assert "those that the file names" in said.stderr


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--nonce", OTHER_NONCE), "attestation_nonce_mismatch"),
        (("--provider", OTHER), "attestation_provider_mismatch"),
        (("--receipt-key", OTHER), "attestation_key_mismatch"),
        (("--at", str(NOW + 100 * 86_400)), "attestation_collateral_expired"),
    ],
)
def test_a_bad_one_ends_with_its_code(files, run, more, code):
    evidence, policy = files
    options = ("--policy", policy, "--nonce", NONCE, "--at", str(NOW), *more)
    ran = run("attest", "verify", evidence, *options, "--json")
    assert ran.exit_code == 8
    assert json.loads(ran.stdout or ran.stderr)["error"]["code"] == code


def test_a_home_without_a_policy_says_so(files, run):
    ran = run("attest", "verify", files[0], "--nonce", NONCE)
    assert ran.exit_code == 2
    assert "attestation-policy.json" in ran.stderr


def test_without_the_extra_one_line_says_how_to_install_it(files):
    """In a process of its own, where the package cannot be imported."""
    program = "import sys; sys.modules['dcap_qvl'] = None; from hanse.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program, "attest", "verify", files[0], "--policy", files[1]]
        + ["--nonce", NONCE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert "pip install 'hanse[attest]'" in ran.stderr


def test_a_policy_of_a_real_quote(run, tmp_path):
    ran = run(
        *("attest", "policy", str(DATA / "tdx_quote"), "--collateral", str(COLLATERAL)),
        *("--at", IN_JUNE_2025),
    )
    assert ran.exit_code == 0, ran.stderr
    policy = json.loads(ran.stdout)
    assert policy["images"][0]["mr_td"].startswith("91eb2b44d141d4ec")
    assert (policy["tcb_statuses"], policy["root"]) == (["UpToDate"], "")


def test_no_policy_of_what_does_not_lead_to_intel(files, run):
    ran = run("attest", "policy", files[0], "--at", str(NOW))
    assert ran.exit_code == 8


@pytest.mark.parametrize("more", [(), ("--collateral", str(DATA / "README.md"))])
def test_a_bare_quote_needs_collateral(run, more):
    assert run("attest", "policy", str(DATA / "tdx_quote"), *more).exit_code == 2


class Service(BaseHTTPRequestHandler):
    """Intel's service as far as it is asked, with the collateral of a real quote."""

    def do_GET(self) -> None:
        held = json.loads(COLLATERAL.read_text())
        path = urlsplit(self.path).path
        signed = {
            "/tdx/certification/v4/tcb": ("tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain"),
            "/tdx/certification/v4/qe/identity": (
                "enclaveIdentity",
                "qe_identity",
                "SGX-Enclave-Identity-Issuer-Chain",
            ),
        }
        if path in signed:
            outer, name, header = signed[path]
            signature = held[f"{name}_signature"]
            body = f'{{"{outer}":{held[name]},"signature":"{signature}"}}'.encode()
            headers = {header: quote(held[f"{name}_issuer_chain"])}
        elif path == "/sgx/certification/v4/pckcrl":
            body = bytes.fromhex(held["pck_crl"])
            headers = {"SGX-PCK-CRL-Issuer-Chain": quote(held["pck_crl_issuer_chain"])}
        elif path == "/sgx/certification/v4/rootcacrl":
            body, headers = held["root_ca_crl"].encode(), {}
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for header, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_collateral_is_fetched_and_verifies_its_quote(service, run, tmp_path):
    target = tmp_path / "collateral.json"
    raw = str(DATA / "tdx_quote")
    ran = run("attest", "collateral", raw, "--pccs", service, "--output", str(target), "--json")
    assert ran.exit_code == 0, ran.stderr
    assert json.loads(ran.stdout)["fmspc"] == "B0C06F000000"
    options = ("--collateral", str(target), "--at", IN_JUNE_2025)
    assert run("attest", "policy", raw, *options).exit_code == 0


def test_collateral_of_nobody(run, tmp_path):
    target = tmp_path / "collateral.json"
    options = ("--pccs", "http://127.0.0.1:9", "--output", str(target))
    ran = run("attest", "collateral", str(DATA / "tdx_quote"), *options)
    assert ran.exit_code == 6
    assert not target.exists()
