"""Settings files: what they may hold, what overrides what, and refusals by name."""

import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from hanse.cli.framework import HanseGroup, pass_session


@pytest.fixture
def root():
    group = HanseGroup("hanse", examples=(("x", "hanse"),))

    @group.command_of("serve", examples=(("x", "hanse serve"),), has_settings=True)
    @click.option("--port", type=click.IntRange(0, 65_535), default=8801)
    @click.option("--output-price", default="1")
    @click.option("--endpoint", multiple=True)
    @click.option("--register/--no-register", default=False)
    @click.option("--model", required=True)
    @pass_session
    def serve(session, **values) -> None:
        session.output.show(dict(values), lambda: None)

    return group


@pytest.fixture
def serve(root, tmp_path):
    def invoke(text, *flags):
        file = tmp_path / "settings.toml"
        file.write_text(text)
        return CliRunner().invoke(root, ["serve", "--json", "--config", str(file), *flags])

    return invoke


def test_flags_override_the_file_and_the_file_the_defaults(serve):
    result = serve(
        'port = 1\noutput_price = "0.5"\nmodel = "m"\nregister = true\nendpoint = ["a", "b"]\n',
        "--port",
        "2",
    )

    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        '{"port": 2, "output_price": "0.5", "endpoint": ["a", "b"], "register": true, '
        '"model": "m"}\n'
    )


def test_a_flag_before_the_file_still_overrides_it(root, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\nmodel = "m"\n')
    result = CliRunner().invoke(root, ["serve", "--json", "--port", "2", "--config", str(file)])
    assert '"port": 2' in result.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("prot = 1", "unknown setting 'prot', did you mean 'port'?"),
        ("output-price = '1'", "unknown setting 'output-price', did you mean 'output_price'?"),
        ("xyzzy = 1\nplugh = 2", "unknown setting 'plugh'"),
        ("home = '/'", "unknown setting 'home'"),
        ("port = '1'", "port is '1', it must be int"),
        ("port = true", "port is True, it must be int"),
        ("output_price = 0.5", "output_price is 0.5, it must be text in quotes"),
        ("register = 'yes'", "register is 'yes', it must be bool"),
        ("endpoint = 'a'", "endpoint must be a list"),
        ("model = ['m']", "model must be one value"),
        ("port = ", "Invalid value"),
        ("#" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_wrong_file_is_refused_by_name(serve, text, reason):
    result = serve(text)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "configuration_invalid" in result.stderr
    assert reason in result.stderr


def test_a_value_out_of_range_is_refused_as_the_flag_would_be(serve):
    result = serve("port = 70000\nmodel = 'm'")

    assert result.exit_code == 2
    assert "70000" in result.stderr


def test_a_command_that_is_to_watch_standard_input_is_refused_without_one(tmp_path):
    """Descriptor 0 would be the next connection, which the watch would read from."""
    arguments = ["gateway", "start", "--while-stdin-open", "--home", str(tmp_path)]
    command = [sys.executable, "-m", "hanse.cli", *arguments]
    script = f"exec {shlex.join(command)} --upstream http://127.0.0.1:9/v1 --port 0 <&-"
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "standard input is closed" in ended.stderr
