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

NOBODY = "http://127.0.0.1:1/v1=nobody"


@contextlib.contextmanager
def run_gateway(home: Path, *arguments: str) -> Iterator[str]:
    """A gateway before a server that is not there; its base URL."""
    command = [sys.executable, "-m", "hanse.cli", "gateway", "start", "--json", "--port", "0"]
    environment = {**os.environ, "HANSE_HOME": str(home)}
    with subprocess.Popen(
        [*command, "--upstream", NOBODY, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
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
            (f'canned_text = "{"x" * 5_000}"', f"{file}: canned_text is"),
        ):
            file.write_text(text)
            refused = run("gateway", "reload", "--json")
            assert refused.error["code"] == "configuration_invalid"
            assert said in refused.error["message"]
        assert ask(url, key) == (200, "canned")
    assert run("gateway", "reload").exit_code == 5  # nothing runs any more


def test_without_a_file_there_is_nothing_to_read_anew(run, home):
    with run_gateway(home, "--silence-s", "5"):
        ran = run("gateway", "reload", "--json")
        assert (ran.exit_code, ran.error["code"]) == (5, "not_found")
        assert "--config FILE" in ran.error["message"]
