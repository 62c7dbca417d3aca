"""A gateway and `hanse audit watch` by themselves: a cheat is drawn, found, barred, challenged."""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hanse.auditor.opened_model import Keyed
from hanse.auditor.watching.copies import CopiesAtHand
from hanse.cli.local_network import PANELS
from hanse.cli.modelling.copies.master_keys import make_master
from hanse.contracts.deployment import Terms
from hanse.models.converting import convert_folder
from hanse.models.copies import CopyOrder, rebase
from tests.cli.auditing.bought_answer import MODEL, PLAIN, bind, write_calibration
from tests.cli.local_market import LOCK_TIME_S, UNIT, wait_until
from tests.engines.tiny_copy import make_copy
from tests.models.tiny_models import write_tiny_folder
from tests.protocol.made_messages import PROVIDER, make_offer


@pytest.fixture(scope="module")
def terms():
    return Terms(lock_time_s=LOCK_TIME_S, panels=PANELS)


def ask(base_url: str, key: str) -> tuple[int, str, str]:
    """Status, body and `hanse-match` of one request."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is a tide?"}],
        "max_tokens": 30,
        "logit_bias": PLAIN,
    }
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "hanse-explain": "1",
        "hanse-session": "one",
    }
    request = urllib.request.Request(
        f"{base_url}/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers["hanse-match"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), ""


def sell(market, name: str, copy: Path, price: str, *options: str) -> None:
    market.start(
        *("provider", "start", "--name", name, "--engine", "llama", "--model", MODEL),
        *("--engine-setting", f"model_path={copy}", "--engine-setting", "context_tokens=512"),
        *("--output-price", price, "--register", "--settle-every", "0", "--threads", "1"),
        *("--port", "0", *options),
    )


@pytest.mark.slow
def test_a_cheat_is_found_barred_and_challenged_without_anybody_asking(market, run, tmp_path):
    names = {}
    for name in ("visby", "lubeck"):
        names[name] = market.add_key(name, units=200)
        market.add_key(f"{name}-receipt")
    market.add_key("user", units=50)
    challenger = market.add_key("challenger", units=50)
    copies = tmp_path / "copies"
    copies.mkdir()
    first = make_copy(copies / "visby.gguf")
    copy = bind(first, names["visby"], first)
    honest = copies / "lubeck.gguf"
    shutil.copy(first, honest)
    bind(honest, names["lubeck"], first)
    other = make_copy(tmp_path / "other.gguf", seed=2)
    calibration = write_calibration(tmp_path / "calibration.json", copy)
    sell(market, "visby", copy, "1000", "--cheat", "other-copy", "--cheat-with", str(other))
    sell(market, "lubeck", honest, "2000")
    opened = [f"{address}=15" for address in names.values()]
    assert run("account", "open", "--deposit", "40", *opened, "--json").exit_code == 0
    key = run("gateway", "keys", "create", "test", "--json").document["api_key"]
    _, document = market.start("gateway", "start", "--port", "0", "--audit")
    url = document["base_url"]
    watch = ("audit", "watch", "--once", "--threads", "1", "--copies", str(copies),
             "--calibration", str(calibration), "--json")  # fmt: skip

    status, _, told = ask(url, key)
    assert status == 200
    assert f"provider={names['visby']}" in told, "the cheapest is asked"
    kept = market.home / "audits" / "kept"
    wait_until(lambda: list(kept.glob("*.kept")), "a kept answer")
    (waiting,) = kept.glob("*.kept")
    before = waiting.read_bytes()
    audited = run(*watch, "--at-least", "100")
    assert audited.document == {"answers": {"cheat": 1}}, audited.stderr
    told_lines = [json.loads(line) for line in audited.stderr.splitlines()]
    (event,) = [line for line in told_lines if line["event"] == "audited"]
    assert (event["provider"], event["verdict"]) == (names["visby"], "cheat")
    assert event["drawn_by"] == "own secret"
    evidence = Path(event["evidence"])

    def is_barred() -> bool:
        _, _, said = ask(url, key)
        return f"barred-by-audit={names['visby']}" in said and names["lubeck"] in said

    wait_until(is_barred, "the gateway goes elsewhere, and says why", 10.0)
    explained = run("match", "-m", MODEL, "--evidence", str(evidence.parent), "--explain", "--json")
    assert explained.document["provider"] == names["lubeck"]
    assert "an audit of ours found" in explained.document["left_out"][0]["reason"]

    # killed between evidence and end: the answer is there again, and is not audited twice
    waiting.write_bytes(before)
    written = evidence.stat().st_mtime_ns
    again = run(*watch, "--at-least", "100").document["answers"]
    assert again.pop("audited before") == 1
    assert evidence.stat().st_mtime_ns == written
    assert again["honest"] >= 1, "what the other one answered since is audited too"
    assert not list(kept.glob("*.kept"))

    # bonds only within the limit, and once
    poor = run(*watch, "--challenge", "challenger", "--bond-max", "1")
    assert "bond_max" in poor.stderr
    nobody = run(*watch, "--challenge", "challenger", "--bond-max", "30")
    assert "too few auditors" in nobody.stderr
    for number in range(PANELS.seats):
        market.add_key(f"auditor-{number}", units=PANELS.lot_stake // UNIT)
        assert run("disputes", "join", "1", "--key", f"auditor-{number}", "--json").exit_code == 0
    rich = run(*watch, "--challenge", "challenger", "--bond-max", "30")
    assert rich.exit_code == 0
    (event,) = [
        line for line in map(json.loads, rich.stderr.splitlines()) if line["event"] == "challenged"
    ]
    assert event["provider"] == names["visby"]
    assert "challenged" not in run(*watch, "--challenge", "challenger", "--bond-max", "30").stderr
    (case,) = run("disputes", "challenges", "--json").document["challenges"]
    assert (case["challenger"], case["provider"]) == (challenger, names["visby"])


def test_copies_by_their_key_are_opened_with_the_plain_model_alone(market, run, tmp_path):
    """No copy's file is there; a wrong model or key is refused before it lets go of any answer."""
    convert_folder(write_tiny_folder(tmp_path / "tiny"), tmp_path / "base.gguf", None, "F32")
    base, master, copy = (tmp_path / name for name in ("base.gguf", "master.key", "copy.gguf"))
    root = run("models", "import", str(base), "--json").document["root"]
    market.add_key("second", units=50)
    order = CopyOrder(make_master(master), root, PROVIDER)
    rebase(base, copy, order, "F32")
    calibration = write_calibration(tmp_path / "calibration.json", copy)
    (told,) = tmp_path.glob("*.copy.json")
    copy.unlink()
    watch = ("audit", "watch", "--once", "--threads", "1", "--key", "second",
             "--calibration", str(calibration), "--copy", str(told),
             "--master", str(master), "--json")  # fmt: skip
    by_torch = ("--model", str(base), "--runtime", "torch")
    assert run(*watch, *by_torch).document == {"answers": {}}
    assert "--model FILE" in run(*watch, "--copies", str(tmp_path)).error["message"]
    assert "--runtime torch" in run(*watch, "--model", str(base)).error["message"]
    other = tmp_path / "other.gguf"
    shutil.copy(base, other)
    refused = run(*watch, "--model", str(other), "--runtime", "torch").error
    assert (refused["code"], "was made of" in refused["message"]) == ("unprocessable", True)
    make_master(tmp_path / "another.key")
    refused = run(*watch, *by_torch, "--master", str(tmp_path / "another.key")).error
    assert "another master key" in refused["message"]

    options = {"runtime": "torch", "threads": 1, "model": base}
    copies = CopiesAtHand(None, [calibration], keyed=[Keyed(told, order.master, master)], **options)
    offer = make_offer(provider=PROVIDER, manifest_root=root, quantisation="all F32")
    (means,) = copies.get_means(offer)
    opened = copies.open(means)
    assert opened.is_keyed
    assert opened.copy.provider == PROVIDER
    assert opened.auditor.prefill.score([5, 6], [7, 8]).canaries.shape == (2, 16)
    copies.close()


def test_copies_have_to_be_named(run):
    refused = run("audit", "watch", "--calibration", "c", "--json")
    assert (refused.exit_code, "--copies FOLDER" in refused.error["message"]) == (2, True)


def test_a_challenge_needs_its_limit(run, tmp_path):
    refused = run(
        *("audit", "watch", "--copies", str(tmp_path), "--calibration", "c", "--challenge", "x"),
        "--json",
    )
    assert refused.exit_code == 2
    assert "--bond-max" in refused.error["message"]
