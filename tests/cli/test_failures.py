"""Errors: one line and what to do, exit codes of the table, JSON on request, no secrets."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import hanse.contracts
from hanse.cli.failures import NEXT_STEPS, REVERT_MEANINGS, is_json_asked
from hanse.cli.framework import HanseGroup, pass_session
from hanse.cli.network import save_network
from hanse.protocol.errors import ERROR_TABLE, HanseError, RequestError
from tests.cli.test_network import NETWORK

SECRET = "0xsecret"


def get_group_raising(error: BaseException) -> HanseGroup:
    root = HanseGroup("hanse", examples=(("x", "hanse"),))

    @root.command_of("fail", examples=(("x", "hanse fail"),))
    def fail() -> None:
        raise error

    return root


@pytest.mark.parametrize("code", ERROR_TABLE)
def test_every_code_has_its_exit_code(code):
    result = CliRunner().invoke(get_group_raising(HanseError(code, "a and b disagree")), ["fail"])

    assert result.exit_code == ERROR_TABLE[code].exit_code
    assert result.stdout == ""
    assert result.stderr.startswith(f"hanse: a and b disagree [{code}]\n")


def test_next_steps_are_for_codes_that_exist():
    assert set(NEXT_STEPS) <= set(ERROR_TABLE)


def test_a_message_stays_on_one_line_and_is_followed_by_what_to_do():
    error = RequestError("model_not_found", "no provider\noffers x")
    result = CliRunner().invoke(get_group_raising(error), ["fail"])

    assert result.stderr.splitlines() == [
        "hanse: no provider offers x [model_not_found]",
        "       See what is offered with: hanse offers",
    ]


def test_json_errors_carry_the_details():
    error = RequestError("insufficient_balance", "needs 5, has 3", details={"missing": "2"})
    result = CliRunner().invoke(get_group_raising(error), ["fail", "--json"])

    assert result.exit_code == 4
    assert result.stdout == ""
    found = json.loads(result.stderr)["error"]
    assert found["code"] == "insufficient_balance"
    assert found["type"] == "insufficient_quota"
    assert found["exit_code"] == 4
    assert found["hanse"] == {"missing": "2"}
    assert "hanse account fund" in found["next_step"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_unknown_exception_is_called_a_defect_without_its_text(flags):
    result = CliRunner().invoke(get_group_raising(ValueError(SECRET)), ["fail", *flags])

    assert result.exit_code == 70
    assert "defect" in result.stderr
    assert "ValueError" in result.stderr
    assert SECRET not in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback():
    result = CliRunner().invoke(
        get_group_raising(ValueError("x")), ["fail"], env={"HANSE_DEBUG": "1"}
    )

    assert result.exit_code == 70
    assert "Traceback" in result.stderr


def test_an_unknown_command_suggests_the_right_one(run):
    ran = run("ofers")

    assert ran.exit_code == 2
    assert "offers" in ran.stderr
    assert "See: hanse --help" in ran.stderr


def test_json_is_asked_only_before_the_double_dash():
    assert is_json_asked(["offers", "--json"])
    assert not is_json_asked(["chat", "--", "--json"])


def test_two_documents_are_refused():
    root = HanseGroup("hanse", examples=(("x", "hanse"),))

    @root.command_of("twice", examples=(("x", "hanse twice"),))
    @pass_session
    def twice(session) -> None:
        session.output.show({}, lambda: None)
        session.output.show({}, lambda: None)

    result = CliRunner().invoke(root, ["twice", "--json"])
    assert result.exit_code == 70
    assert json.loads(result.stdout) == {}


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_ends_with_130_after_closing_what_is_open(flags):
    code = (
        "import asyncio, sys\n"
        "from hanse.cli.framework import HanseGroup\n"
        "root = HanseGroup('hanse', examples=(('x', 'hanse'),))\n"
        "@root.command_of('wait', examples=(('x', 'hanse wait'),))\n"
        "async def wait():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        print('closed', flush=True)\n"
        f"root.main(['wait', *{flags!r}])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)

    assert process.returncode == 130
    assert stdout == "closed\n"
    assert "Traceback" not in stderr
    if flags:
        assert json.loads(stderr)["error"]["code"] == "interrupted"


@pytest.mark.parametrize("says", ["", "session.output.note('asking ...')"])
def test_a_person_who_waits_is_told_once_that_it_is_at_work(says):
    code = (
        "import asyncio, sys\n"
        "from hanse.cli.framework import SILENCE_S, HanseGroup, pass_session\n"
        "root = HanseGroup('hanse', examples=(('x', 'hanse'),))\n"
        "@root.command_of('wait', examples=(('x', 'hanse wait'),))\n"
        "@pass_session\n"
        "async def wait(session):\n"
        f"    {says or 'pass'}\n"
        "    await asyncio.sleep(SILENCE_S + 0.2)\n"
        "root.main(['wait'], prog_name='hanse')\n"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(60) == 0
    shown = os.read(ours, 4_096).decode()
    os.close(ours)
    assert shown.count("\n") == 1
    assert ("asking ..." if says else "hanse wait is at work; Ctrl-C ends it ...") in shown


def test_a_prompt_without_input_is_a_usage_error():
    root = HanseGroup("hanse", examples=(("x", "hanse"),))

    @root.command_of("ask", examples=(("x", "hanse ask"),))
    def ask() -> None:
        click.prompt("Amount")

    result = CliRunner().invoke(root, ["ask"], input="")
    assert result.exit_code == 2
    assert "[usage]" in result.stderr


def test_a_revert_reason_is_told_as_a_sentence():
    error = HanseError(
        "transaction_failed", "'fund' failed: provider", details={"reason": "provider"}
    )
    result = CliRunner().invoke(get_group_raising(error), ["fail"])

    assert "No such provider, or its stake does not stand." in result.stderr


def test_every_revert_reason_that_is_explained_is_one_of_the_contracts():
    contracts = Path(hanse.contracts.__file__).parent
    sources = "".join(path.read_text("utf-8") for path in contracts.glob("*.vy"))
    for reason in REVERT_MEANINGS:
        assert f', "{reason}"' in sources, reason


def test_a_shortfall_is_told_in_whole_units(tmp_path):
    save_network(tmp_path, NETWORK)
    error = HanseError(
        "insufficient_balance", "too little", details={"needed": "5000000", "available": "1"}
    )
    arguments = ["fail", "--home", str(tmp_path)]
    result = CliRunner().invoke(get_group_raising(error), arguments)

    assert "Needed are 5 tUSD, there are 0.000001 tUSD." in result.stderr


def test_amounts_have_one_unit_and_programs_keep_base_units(tmp_path):
    save_network(tmp_path, NETWORK)
    text = "the sub-account is funded with 100 base units in all, needed are 105 base units"
    error = RequestError("insufficient_balance", text, details={"needed": "105", "available": "1"})
    arguments = ["fail", "--home", str(tmp_path)]
    shown = CliRunner().invoke(get_group_raising(error), arguments).stderr
    assert "funded with 0.0001 tUSD in all, needed are 0.000105 tUSD [" in shown
    assert "base units" not in shown
    as_json = CliRunner().invoke(get_group_raising(error), [*arguments, "--json"]).stderr
    assert json.loads(as_json)["error"]["message"] == text
    elsewhere = CliRunner().invoke(get_group_raising(error), ["fail", "--home", "/nowhere"]).stderr
    assert text in elsewhere, "without a network nobody knows how amounts are written"


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize(
    "code", ["insufficient_balance", "sub_account_unknown", "voucher_too_low", "transaction_failed"]
)
def test_advice_names_the_key_in_use(code, flags):
    root = HanseGroup("hanse", examples=(("x", "hanse"),))

    @root.command_of("pay", examples=(("x", "hanse pay"),))
    @click.option("--key", default="user")
    def pay(key: str) -> None:
        raise RequestError(code, "too little")

    other = CliRunner().invoke(root, ["pay", "--key", "pauper", *flags]).stderr
    assert "hanse money --key pauper" in other or "PROVIDER AMOUNT --key pauper" in other
    if code == "insufficient_balance":
        assert "hanse account show --key pauper." in other
    usual = CliRunner().invoke(root, ["pay", *flags]).stderr
    assert "--key" not in usual
    assert "{key}" not in usual
    assert "{signer}" not in usual


def test_advice_to_fund_names_the_signer_in_use():
    root = HanseGroup("hanse", examples=(("x", "hanse"),))

    @root.command_of("pay", examples=(("x", "hanse pay"),))
    @click.option("--key", default="user")
    @click.option("--signer")
    def pay(key: str, signer: str | None) -> None:
        raise RequestError("insufficient_balance", "too little")

    said = CliRunner().invoke(root, ["pay", "--signer", "gateway"]).stderr
    assert said.rstrip().endswith("hanse account fund PROVIDER AMOUNT --signer gateway")
    assert "hanse account show." in said, "which has no such option"


@pytest.mark.parametrize("words", [(), ("keys",), ("gateway", "keys")])
def test_without_a_command_the_help_is_shown_as_it_is(run, words):
    ran = run(*words)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert "\nExamples:\n" in ran.stderr
    assert "[usage]" not in ran.stderr

    as_json = run(*words, "--json")
    assert as_json.exit_code == 2
    assert as_json.error["message"] in ("A command is missing.", "Missing command.")


def test_a_home_that_cannot_be_made_is_named(run, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    ran = run("gateway", "keys", "list", "--home", str(file / "home"), "--json")

    assert ran.exit_code == 6
    assert ran.error["code"] == "store_unavailable"
    assert str(file) in ran.error["message"]
