"""`hanse gateway reload`: a running gateway reads its file anew, and a mistake changes nothing."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from hanse.cli.buying.gateway_options import make_settings
from hanse.cli.commands.gateway import start
from hanse.cli.session import Session
from hanse.gateway import GatewaySettings
from hanse.market import CHEAPEST

NOBODY = "http://127.0.0.1:1/v1=nobody"


@contextlib.contextmanager
def run_gateway(home: Path, *arguments: str, log: Path | None = None) -> Iterator[str]:
    """A gateway before a server that is not there; its base URL."""
    command = [sys.executable, "-m", "hanse.cli", "gateway", "start", "--json", "--port", "0"]
    environment = {**os.environ, "HANSE_HOME": str(home)}
    with (
        Path(log or os.devnull).open("wb") as errors,
        subprocess.Popen(
            [*command, "--upstream", NOBODY, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdout is not None
        text = b""
        while not text.endswith(b"}\n"):
            line = process.stdout.readline()
            assert line, "the gateway ended"
            text += line
        try:
            yield json.loads(text)["base_url"]
        finally:
            process.terminate()
            process.wait(20)


def ask(url: str, key: str) -> tuple[int, str]:
    """Status and provider of a chat."""
    body = {"model": "nobody", "messages": [{"role": "user", "content": "x"}]}
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["hanse-provider"]
    except urllib.error.HTTPError as error:
        return error.code, ""


def until_canned(url: str, key: str) -> None:
    deadline_s = time.monotonic() + 10
    while ask(url, key) != (200, "canned"):
        assert time.monotonic() < deadline_s, "the new settings did not come into force"
        time.sleep(0.05)


def test_a_file_is_read_anew_and_a_mistake_changes_nothing(run, home, tmp_path):
    key = run("gateway", "keys", "create", "notebook", "--json").document["api_key"]
    file = tmp_path / "gateway.toml"
    file.write_text("silence_s = 20.0\n")
    with run_gateway(home, "--config", str(file)) as url:
        assert ask(url, key)[0] == 503
        file.write_text('canned_text = "Come back later."\n')
        ran = run("gateway", "reload", "--json")
        assert ran.exit_code == 0, ran.stderr
        assert [one["config"] for one in ran.document["reloaded"]] == [str(file)]
        until_canned(url, key)

        for text, said in (
            ("silence = 1.0", "unknown setting 'silence', did you mean 'silence_s'?"),
            ("turns_max = 99", "99 is not in the range 0<=x<=16"),
            ("turns_max = 'two'", "it must be int"),
            ("canned_text =", f"{file}: Invalid value"),
            ("policy = 'quickest'", f"{file}: the policy is 'quickest'"),
            ("region = 'EU'", f"{file}: region is 'EU'"),
            (f'canned_text = "{"x" * 5_000}"', f"{file}: canned_text is"),
        ):
            file.write_text(text)
            refused = run("gateway", "reload", "--json")
            assert refused.error["code"] == "configuration_invalid"
            assert said in refused.error["message"]
        assert ask(url, key) == (200, "canned")
    assert run("gateway", "reload").exit_code == 5  # nothing runs any more


def test_the_log_names_what_was_changed_and_what_takes_a_restart(run, home, tmp_path):
    file, log = tmp_path / "gateway.toml", tmp_path / "gateway.log"
    file.write_text('silence_s = 20.0\npolicy = "fastest"\n')
    with run_gateway(home, "--config", str(file), "--fund-below", "1", log=log):
        file.write_text(
            'silence_s = 20.0\npolicy = "balanced"\nregion = "eu"\ntrial_percent = 5.0\n'
            'fund_to = "5"\nfund_below = "2"\ntraces = "traces"\nwallet = 1\n'
        )
        assert run("gateway", "reload", "--json").error["code"] == "configuration_invalid"
        file.write_text(
            'silence_s = 20.0\npolicy = "balanced"\nregion = "eu"\ntrial_percent = 5.0\n'
            'fund_to = "5"\nfund_below = "2"\ntraces = "traces"\n'
            'fallback_url = "http://127.0.0.1:1/v1"\ndatabase = "postgresql:///elsewhere"\n'
        )
        assert run("gateway", "reload").exit_code == 0
        said = until_said(log, "settings read anew; changed: ")
    assert said.endswith("changed: policy, region, trial_share\n")
    assert "change nothing: --fund-below, --policy\n" in said
    late = [line.split(": ")[-1].split(", ") for line in said.splitlines() if "restart" in line]
    # --fund-below, as given, goes before the file
    assert list(map(set, late)) == [{"fund_to", "traces", "database"}, {"fallback_url"}]


def test_an_access_log_that_a_reload_turns_on_is_written(run, home, tmp_path):
    key = run("gateway", "keys", "create", "notebook", "--json").document["api_key"]
    file, log = tmp_path / "gateway.toml", tmp_path / "gateway.log"
    file.write_text("access_log = false\n")
    with run_gateway(home, "--config", str(file), log=log) as url:
        assert ask(url, key)[0] == 503
        file.write_text("access_log = true\n")
        assert run("gateway", "reload").exit_code == 0
        assert "chat_completions" not in until_said(log, "changed: access_log")
        assert ask(url, key)[0] == 503
        until_said(log, '"operation":"chat_completions"')


def until_said(log: Path, text: str) -> str:
    deadline_s = time.monotonic() + 10
    while text not in (said := log.read_text()) or not said.endswith("\n"):
        assert time.monotonic() < deadline_s, said
        time.sleep(0.05)
    return said


def test_a_gateway_without_options_has_the_settings_as_they_are_by_themselves():
    options = start.make_context("start", [], obj=Session()).params
    assert make_settings(options) == GatewaySettings(policy=CHEAPEST)


def test_without_a_file_there_is_nothing_to_read_anew(run, home):
    with run_gateway(home, "--silence-s", "5"):
        ran = run("gateway", "reload", "--json")
        assert (ran.exit_code, ran.error["code"]) == (5, "not_found")
        assert "--config FILE" in ran.error["message"]
