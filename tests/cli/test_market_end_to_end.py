"""The whole of buying and selling by commands alone, on a real chain, with a fake engine."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from decimal import Decimal

import pytest

from hanse.market import BALANCED
from tests.cli.local_market import UNIT, wait_until

pytestmark = pytest.mark.slow

MODEL = "echo-1"


@pytest.fixture(scope="module")
def provider(market):
    """A running provider: address, process and what it printed."""
    address = market.add_key("provider", units=200)
    market.add_key("provider-receipt")
    process, document = market.start(
        *("provider", "start", "--engine", "echo", "--model", MODEL, "--port", "0"),
        *("--input-price", "1000", "--output-price", "2000", "--register", "--settle-every", "0"),
        *("--region", "eu-north"),
    )
    assert document["provider"] == address
    assert process.poll() is None
    return address


@pytest.fixture(scope="module")
def user(market):
    return market.add_key("user", units=50)


def test_from_offers_to_the_last_unit_withdrawn(market, provider, user, run, tmp_path):
    found = run("offers", "--json").document
    assert found["missing"] == {}
    (offer,) = found["offers"]
    assert (offer["provider"], offer["model"], offer["health"]) == (provider, MODEL, "ok")
    assert offer["prices"]["output_per_mtok"] == str(2000 * UNIT)

    opened = run("account", "open", "--deposit", "20", f"{provider}=15", "--json")
    assert opened.exit_code == 0, opened.stderr
    assert opened.document["transaction_hash"].startswith("0x")

    traces = ("--traces", str(tmp_path / "traces"))
    answer = run("chat", "--max-tokens", "20", *traces, "--json", "one two three")
    assert answer.exit_code == 0, answer.stderr
    document = answer.document
    assert document["text"]
    fee = int(document["fee"])
    assert fee > 0
    assert document["verification"] == "verified"

    receipts = run("receipts", "list", "--json").document["receipts"]
    assert [receipt["request_id"] for receipt in receipts] == [document["request_id"]]
    (trace,) = run("traces", "list", "--json").document["traces"]
    assert (trace["request_id"], trace["state"]) == (document["request_id"], "stored")
    shown = run("traces", "decrypt", document["request_id"], "--json").document
    assert "one two three" in shown["body"]

    money = run("money", "--json").document
    assert money["differences"] == []
    assert money["total"] == str(50 * UNIT)
    assert money["by_place"]["wallet"] == str(30 * UNIT)
    assert money["by_place"]["account"] == str(5 * UNIT)
    assert money["by_place"]["accrued"] == str(fee)
    assert money["by_place"]["free"] == str(15 * UNIT - fee)
    free = next(place for place in money["places"] if place["place"] == "free")
    assert free["transaction_hash"] == opened.document["transaction_hash"]

    dry = run("settle", "--dry-run", "--json").document
    assert dry["payable"] == str(fee)
    plan = run("settle", "--plan", "--json").document
    assert (plan["decision"], plan["reason"], plan["waiting"]) == ("wait", "not_yet", str(fee))
    assert (plan["on_demand"]["decision"], plan["on_demand"]["value"]) == ("settle", str(fee))
    assert [claim["payable"] for claim in plan["claims"]] == [str(fee)]
    shown = run("settle", "--plan").stdout
    assert "neither the clock nor a refund" in shown
    assert "the gas rule is off" in shown
    refused = run("settle", "--plan", "--native-price", "2500")
    assert (refused.exit_code, "of its own" in refused.stderr) == (2, True)
    settled = run("settle", "--json")
    assert settled.exit_code == 0, settled.stderr
    assert settled.document["paid"] == str(fee)
    assert settled.document["batches"][0]["claims"][0]["status"] == "paid"
    assert run("settle", "--json").document == {"batches": [], "paid": "0"}

    refund = run("account", "refund", provider, "--json")
    assert refund.exit_code == 0, refund.stderr
    assert refund.document["pending_refund"] == str(15 * UNIT - fee)

    early = run("account", "refund", provider, "--claim", "--json")
    assert early.exit_code == 2
    assert "comes free at" in early.error["message"]

    waiting = run("money", "--json").document
    assert waiting["by_place"]["refund"] == str(15 * UNIT - fee)

    market.advance_time(3_700)
    claimed = run("account", "refund", provider, "--claim", "--json")
    # the provider's broker may have completed it first
    assert claimed.exit_code in (0, 5, 7), claimed.stderr
    held = wait_until(
        lambda: run("money", "--json").document["by_place"]["account"] == str(20 * UNIT - fee),
        "the refund reached the account",
    )
    assert held

    withdrawn = run("account", "withdraw", "all", "--json")
    assert withdrawn.exit_code == 0, withdrawn.stderr
    last = run("money", "--json").document
    assert last["by_place"]["wallet"] == str(50 * UNIT - fee)
    assert last["total"] == str(50 * UNIT - fee)
    assert last["paid"] == str(fee)
    assert last["differences"] == []


def test_tables_for_people_name_the_same_figures(provider, user, run):
    assert MODEL in run("offers").stdout
    money = run("money")
    figures = run("money", "--json").document
    total = Decimal(figures["total"]) / UNIT
    (line,) = [line for line in money.stdout.splitlines() if "sum" in line]
    assert f" {total.normalize():f} " in line
    assert "tHSD" in money.stdout
    status = run("provider", "status")
    assert provider in status.stdout
    assert "still to claim" in status.stdout


def test_money_in_words_names_place_reason_and_command(provider, user, run):
    shown = run("money")
    assert shown.exit_code == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    for part in (
        "why held by the address itself, outside Hanse's contracts",
        "to do hanse account deposit all",
        "from 30: Received 0x",
    ):
        assert part in words, shown.stdout
    document = run("money", "--json").document
    assert document["asset"] == {"symbol": "tHSD", "decimals": 6}
    for place in document["places"]:
        assert sum(int(origin["amount"]) for origin in place["origins"]) == int(place["amount"])
    assert document["alarms"] == []


def test_an_exported_receipt_is_verified_without_this_home(provider, user, run, tmp_path):
    exported = run("receipts", "export")
    assert exported.exit_code == 0, exported.stderr
    file = tmp_path / "receipt.json"
    file.write_text(exported.stdout)

    elsewhere = {"HANSE_HOME": str(tmp_path / "nowhere")}
    ran = run("receipts", "verify", str(file), "--json", **elsewhere)
    assert ran.exit_code == 0, ran.stderr
    assert ran.document["verified"] is True
    assert ran.document["receipt"]["provider"] == provider
    assert not (tmp_path / "nowhere").exists()

    assert run("receipts", "verify", "-", stdin=exported.stdout, **elsewhere).exit_code == 0

    forged = json.loads(exported.stdout)
    forged["receipt"]["fee"] = "0"
    file.write_text(json.dumps(forged))
    refused = run("receipts", "verify", str(file), "--json", **elsewhere)
    assert refused.exit_code == 8
    assert refused.stdout == ""


def test_too_little_money_is_said_with_what_to_do(market, provider, user, run):
    ran = run("account", "withdraw", "1000000", "--json")
    assert ran.exit_code == 4
    assert ran.error["code"] == "insufficient_balance"
    assert int(ran.error["hanse"]["needed"]) == 1_000_000 * UNIT

    market.add_key("pauper")
    asked = ("chat", "--key", "pauper", "--max-tokens", "20", "one two three")
    shown = run(*asked)
    assert shown.exit_code == 4, shown.stderr
    assert "hanse account show --key pauper." in shown.stderr
    assert "hanse account fund PROVIDER AMOUNT --key pauper" in shown.stderr
    assert "tHSD to be free" in shown.stderr
    assert "base units" not in shown.stderr
    assert "base units to be free" in run(*asked, "--json").error["message"]


def test_a_match_says_who_would_be_asked_and_why(provider, user, run):
    asked = ("match", "-m", MODEL, "--policy", "balanced", "--session", "npc-7")
    document = run(*asked, "--json").document
    assert (document["provider"], document["why"]) == (provider, "session")
    (ranked,) = document["ranked"]
    assert ranked["score"] == pytest.approx(sum(ranked["parts"].values()), abs=1e-5)
    assert ranked["free_slots"] > 0  # as its heartbeat says
    assert document["missing"] == {}  # nobody who is published gave no offer
    shown = run(*asked, "--explain")
    assert provider in shown.stdout
    assert "reliability" in shown.stdout
    assert run(*asked, "--region", "eu", "--json").document["provider"] == provider
    nobody = run("match", "-m", MODEL, "--region", "us", "--explain", "--json")
    assert nobody.document["provider"] is None
    assert [one["kind"] for one in nobody.document["left_out"]] == ["region"]
    assert (nobody.exit_code, nobody.error["code"]) == (2, "unprocessable")
    for more in ((), ("--explain",)):  # as `hanse quote` of it
        unknown = run("match", "-m", "nobody-has-this", *more, "--json")
        assert (unknown.exit_code, unknown.error["code"]) == (5, "model_not_found")
    assert run("match", "-m", MODEL, "--region", "us").exit_code != 0
    assert run("match", "-m", MODEL, "--policy", "best", "--json").exit_code == 2


def test_a_match_goes_by_reputations_if_there_is_evidence(provider, user, run, tmp_path):
    asked = ("match", "-m", MODEL, "--policy", "balanced", "--evidence", str(tmp_path))
    document = run(*asked, "--json").document
    reputation = document["reputations"][provider]
    assert reputation["newness_ppm"] > 990_000  # it registered just now
    assert reputation["risk_ppm"] == reputation["prior_ppm"]  # nobody has said anything
    (ranked,) = document["ranked"]
    assert ranked["parts"]["reliability"] == pytest.approx(0.4)  # twice as doubtful as usual
    (tmp_path / "broken.json").write_text("{}")
    seen = ("observe", provider, "--failed", "--key", "user", "-o", str(tmp_path / "seen.json"))
    assert run(*seen, "--json").document["observation"]["provider"] == provider
    told = run(*asked, "--json").document["reputations"][provider]
    assert (told["parts"], told["unheard"]) == ([], 1)  # the user stakes nothing
    shown = run(*asked, "--explain")
    assert f"{provider} is expected to fail" in shown.stderr.replace("\n", " ")
    assert "no evidence: broken.json" in shown.stderr


def test_a_model_nobody_offers_is_not_found(provider, user, run):
    ran = run("chat", "-m", "nobody-has-this", "--json", "hello")
    assert ran.exit_code == 5
    assert ran.error["code"] == "model_not_found"


def test_status_says_what_the_chain_the_broker_and_the_books_say(provider, run):
    document = run("provider", "status", "--json").document

    assert document["registered"] is True
    assert document["health"] == "ok"
    assert document["broker"]["offers"][0]["model"] == MODEL
    assert int(document["stake"]) > 0


def test_a_second_process_cannot_take_the_same_provider(provider, run):
    ran = run("provider", "start", "--engine", "echo", "--register", "--json")

    assert ran.exit_code == 2
    assert "another process" in ran.error["message"]


@pytest.fixture(scope="module")
def slow_provider(market, user):
    """A provider that takes its time over each token, funded by the user."""
    address = market.add_key("slow", units=200)
    market.add_key("slow-receipt")
    market.start(
        *("provider", "start", "--name", "slow", "--engine", "echo", "--model", "slow-1"),
        *("--engine-setting", "token_delay_s=0.05", "--engine-setting", "answer_tokens=1000"),
        *("--input-price", "1000", "--output-price", "2000", "--port", "0", "--register"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "hanse.cli", "account", "open", "--deposit", "10", "slow=10"],
        env=market.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return address


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_stops_the_answer_and_tells_the_charge(market, slow_provider, user, run, flags):
    process = subprocess.Popen(
        [sys.executable, "-m", "hanse.cli", "chat", "-m", "slow-1", *flags, "a b c d e f"],
        env=market.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if flags:
        in_flight = wait_until(lambda: get_in_flight(run), "the request is at work")
        assert in_flight == 1
        shown = ""
    else:
        shown = process.stdout.read(4)
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    newest = run("receipts", "list", "--limit", "1", "--json").document["receipts"][0]["receipt"]
    assert newest["finish_reason"] == "cancelled"
    if flags:
        document = json.loads(stdout)
        assert document["is_cut"] is True
        assert document["fee"] == newest["fee"]
        assert json.loads(stderr)["error"]["code"] == "interrupted"
    else:
        assert set((shown + stdout).split()) <= set("abcdef")
        assert "stopped" in stderr
        assert f"{newest['output_tokens']} out" in stderr
        assert 0 < newest["output_tokens"] < 1_000


def get_in_flight(run):
    status = run("provider", "status", "--name", "slow", "--json").document
    return status["broker"]["in_flight"]


def test_a_conversation_at_a_terminal_goes_on_until_its_end(market, slow_provider, user):
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "hanse.cli", "chat", "-m", "slow-1", "--max-tokens", "3"],
        env={**market.environment, "NO_COLOR": "1"},
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(follower)
    os.write(leader, b"one two three\n")
    os.write(leader, b"four five six\n")
    os.write(leader, b"\x04")
    stdout, stderr = process.communicate(timeout=60)
    os.close(leader)

    assert process.returncode == 0, stderr
    first, second = stdout.splitlines()
    assert set(first.split()) == {"one", "two", "three"}
    assert len(second.split()) == 3
    assert stderr.count(" tokens in, 3 out, ") == 2
    assert "\x1b" not in stdout + stderr


def ask(base_url, api_key):
    """A chat request through a gateway; None while the key is unknown there."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
    headers["hanse-explain"] = "1"
    request = urllib.request.Request(
        base_url + "/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        return None


def read_reliability(answer):
    """What doubt cost the offer that was chosen, as the gateway explains it."""
    parts = dict(part.split("=") for part in answer.headers["hanse-match"].split(", "))
    return float(parts["reliability"])


def test_a_gateway_serves_who_has_a_key(market, provider, user, run, tmp_path):
    signer = market.add_key("gateway")
    opened = run(
        *("account", "open", "--deposit", "5", f"{provider}=5", "--signer", "gateway", "--json")
    )
    assert opened.exit_code == 0, opened.stderr
    process, document = market.start(
        *("gateway", "start", "--key", "user", "--signer", "gateway", "--port", "0"),
        *("--policy", "balanced", "--evidence", str(tmp_path)),
    )
    assert (document["user"], document["signer"]) == (user, signer)
    api_key = run("gateway", "keys", "create", "test", "--json").document

    fees = []

    def is_doubtful():
        answer = ask(document["base_url"], api_key["api_key"])
        if answer is not None:
            fees.append(int(answer.headers["hanse-fee"]))
        return answer is not None and read_reliability(answer) > 1.5 * BALANCED.reliability

    # a running gateway sees a new key within a second, and goes by reputations once it has them:
    # who registered just now counts as twice as doubtful as usual
    wait_until(is_doubtful, "an answer of a provider in doubt")
    assert min(fees) > 0

    # what the command line funds now, the running gateway sees, and the other way round
    money = run("money", "--json").document
    assert money["differences"] == []
    accrued = [p for p in money["places"] if p["signer"] == signer and p["place"] == "accrued"]
    assert [int(place["amount"]) for place in accrued] == [sum(fees)]

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0


def test_an_idle_provider_is_told_that_another_is_cheaper(market, slow_provider, run):
    market.add_key("dear", units=200)
    market.add_key("dear-receipt")
    process = subprocess.Popen(
        [sys.executable, "-m", "hanse.cli", "provider", "start", "--name", "dear", "--register"]
        + ["--engine", "echo", "--model", "slow-1", "--port", "0", "--output-price", "2001"],
        env=market.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    market.processes.append(process)
    said = []
    for line in process.stderr:
        said.append(line)
        if "no request has come yet" in line:
            break
    text = "".join(said)
    assert "registering" in text
    assert "no user has funded a sub-account for this provider yet" in text
    assert "1 other offer of this model is cheaper" in text

    status = run("provider", "status", "--name", "dear", "--json").document
    assert any("cheaper" in reason for reason in status["idle_because"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def read_provider_money(run):
    """`hanse provider money` of the slow one; what it earned is settled or in one place."""
    ran = run("provider", "money", "--name", "slow", "--json")
    assert ran.exit_code == 0, ran.stderr
    money = ran.document
    places = {place["place"]: int(place["amount"]) for place in money["places"]}
    owed = places["sent"] + places["claimable"] + places["uncovered"]
    assert int(money["earned"]) == int(money["settled"]) + owed
    assert all(place["why"] and place["until"] for place in money["places"])
    return money, places


def test_settling_works_without_a_running_broker(market, slow_provider, user, run):
    due = int(run("settle", "--name", "slow", "--dry-run", "--json").document["payable"])
    assert due > 0
    asked, places = read_provider_money(run)
    assert places["claimable"] == due
    assert asked["provider"] == slow_provider
    (process,) = [p for p in market.processes if "slow" in p.args and p.poll() is None]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0

    status = run("provider", "status", "--name", "slow", "--json").document
    assert status["health"] == "not running"
    assert "hanse provider start" in status["idle_because"][0]
    assert status["due"] == str(due)
    read, places_read = read_provider_money(run)  # from books and chain, now that nobody answers
    assert places_read == places
    assert (read["earned"], read["settled"]) == (asked["earned"], asked["settled"])

    settled = run("settle", "--name", "slow", "--json")
    assert settled.exit_code == 0, settled.stderr
    assert settled.document["paid"] == str(due)
    after, places_after = read_provider_money(run)
    assert places_after["claimable"] == 0
    assert int(after["settled"]) == int(read["settled"]) + due
    assert places_after["wallet"] == places["wallet"] + due

    away = run("chat", "-m", "slow-1", "--json", "hello")
    assert away.exit_code in (5, 6)
    left_out = run("offers", "--json").document["missing"]
    assert f"{slow_provider}/1" in left_out


def test_a_stake_comes_back_by_the_command_that_its_words_name(market, slow_provider, run):
    def find_stake(document):
        return next(place for place in document["places"] if place["place"] == "stake")

    stake = find_stake(read_provider_money(run)[0])
    early = run("provider", "unbond", "--name", "slow", "--finish", "--json")
    assert (early.exit_code, early.error["code"]) == (2, "usage")
    assert "is not unbonding" in early.error["message"]

    assert stake["command"] == "hanse provider unbond --name slow"
    begun = run(*stake["command"].split()[1:], "--json")
    assert begun.exit_code == 0, begun.stderr
    waiting = find_stake(read_provider_money(run)[0])
    assert waiting["unlock_time_s"] == begun.document["unbonding_until_s"] > 0
    assert waiting["command"] == "hanse provider unbond --finish --name slow"
    soon = run("provider", "unbond", "--name", "slow", "--finish", "--json")
    assert "is unbonding until" in soon.error["message"]

    # the same wallet as a user's: its own money, with the transactions that put it there
    mine = run("money", "--key", "slow", "--json").document
    places = {place["place"]: place for place in mine["places"]}
    assert places["stake"]["amount"] == stake["amount"]
    registered = [e for e in mine["journal"] if e["name"] == "Registered"]
    assert places["stake"]["transaction_hash"] == registered[0]["transaction_hash"]
    assert places["wallet"]["command"] == "hanse account deposit all --key slow"
    assert places["stake"]["command"] == "hanse provider unbond --finish --name slow"
    assert [origin["event"] for origin in places["wallet"]["origins"]] == ["Received"] * len(
        places["wallet"]["origins"]
    )

    cancelled = run("provider", "unbond", "--name", "slow", "--cancel", "--json")
    assert cancelled.exit_code == 0, cancelled.stderr
    assert cancelled.document["unbonding_until_s"] == 0
    run(*stake["command"].split()[1:])
    until_s = find_stake(read_provider_money(run)[0])["unlock_time_s"]
    market.advance_time(until_s - read_provider_money(run)[0]["chain_time"] + 1_000)
    (alarm,) = wait_until(lambda: read_provider_money(run)[0]["alarms"], "the alarm")
    assert (alarm["code"], alarm["amount"]) == ("unbonding_overdue", stake["amount"])
    finished = run(*alarm["command"].split()[1:], "--json")
    assert finished.exit_code == 0, finished.stderr
    assert finished.document["stake"] == "0"
    document, places_after = read_provider_money(run)
    assert places_after["stake"] == 0
    assert document["alarms"] == []


def test_registering_is_asked_for_and_a_small_stake_refused(market, run):
    market.add_key("third", units=200)
    market.add_key("third-receipt")
    start = ("provider", "start", "--name", "third", "--engine", "echo", "--port", "0", "--json")

    unasked = run(*start)
    assert unasked.exit_code == 2
    assert "--register" in unasked.error["message"]
    small = run(*start, "--register", "--stake", "1")
    assert small.exit_code == 2
    assert "below the least that counts" in small.error["message"]
    wrong = run(*start, "--register", "--threads", "2")
    assert wrong.exit_code == 2
    assert "engine 'llama'" in wrong.error["message"]
