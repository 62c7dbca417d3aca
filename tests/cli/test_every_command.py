"""What holds for every command: help with examples, --json, --home, the page, quickness."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hanse.cli.main import COMMANDS, hanse
from hanse.cli.reference import iterate_commands, render_reference
from hanse.cli.settings import list_settings

ALL = {" ".join(path): command for path, command in iterate_commands()}
LEAVES = {name: found for name, found in ALL.items() if not isinstance(found, click.Group)}
ROOT = Path(__file__).parents[2]

START_UP_CPU_S_MAX = 0.3


@pytest.mark.parametrize("name", ALL)
def test_help_has_examples_and_the_shared_options(name, run):
    ran = run(*name.split()[1:], "--help")

    assert ran.exit_code == 0
    options, _, examples = ran.stdout.partition("\nExamples:\n")
    assert "--json" in options
    assert "--home" in options
    lines = examples.splitlines()
    assert any(line.startswith("  # ") for line in lines)
    assert any("hanse" in line and not line.startswith("  #") for line in lines)


@pytest.mark.parametrize("name", ALL)
def test_every_example_names_commands_and_options_that_exist(name):
    for meaning, line in ALL[name].examples:
        assert meaning
        for part in re.findall(r"hanse ([^|;()>]*)", line):
            words = part.split()
            found, depth = hanse, 0
            while isinstance(found, click.Group) and depth < len(words):
                if words[depth].startswith("-"):
                    break
                assert words[depth] in found.list_commands(click.Context(found)) or (
                    words[depth] == "up"
                ), line
                if words[depth] == "up":
                    return
                found = found.get_command(click.Context(found), words[depth])
                depth += 1
            flags = {flag for param in found.params for flag in param.opts} | {
                "--version",
                "--help",
            }
            for word in words[depth:]:
                if word.startswith("--") and word != "--":
                    assert word.partition("=")[0] in flags, f"{word} in {line}"


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_does(name):
    for param in ALL[name].params:
        if isinstance(param, click.Option):
            assert param.help, f"{name} {param.opts}"


def test_the_table_of_commands_says_what_the_commands_say():
    for name, (_, line) in COMMANDS.items():
        if f"hanse {name}" in ALL:
            assert ALL[f"hanse {name}"].get_short_help_str(100) == line


def test_the_reference_page_is_up_to_date():
    page = ROOT / "docs" / "cli.md"
    assert page.read_text("utf-8") == render_reference(), (
        "run: python -m hanse.cli.reference > docs/cli.md"
    )


@pytest.mark.parametrize("name", LEAVES)
def test_a_wrong_option_is_one_json_error_with_exit_code_2(name, run):
    ran = run(*name.split()[1:], "--no-such-option", "--json")

    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert ran.error["code"] == "usage"
    assert "--no-such-option" in ran.error["message"]


@pytest.mark.parametrize("name", LEAVES)
def test_in_an_empty_home_a_command_writes_one_document_or_one_error(name, run):
    if name == "hanse up":
        pytest.skip("starts a network")
    arguments = ["x" for p in LEAVES[name].params if isinstance(p, click.Argument)]
    ran = run(*name.split()[1:], *arguments, "--json")

    if ran.exit_code == 0:
        assert isinstance(json.loads(ran.stdout), dict)
        assert ran.stderr == ""
    else:
        assert ran.stdout == ""
        assert ran.exit_code in (2, 3, 4, 5, 6)
        assert ran.error["exit_code"] == ran.exit_code


def test_settings_files_cannot_set_what_is_not_a_setting():
    for name, found in LEAVES.items():
        if any(param.name == "config" for param in found.params):
            assert not {"home", "json", "help", "config"} & set(list_settings(found)), name


def test_help_is_quick_and_imports_no_server():
    code = (
        "import sys\n"
        "from hanse.cli.main import main\n"
        "sys.argv = ['hanse', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'uvicorn', 'eth_account', 'eth_abi', 'torch', 'xllamacpp', 'rich'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert "LOADED []" in done.stdout
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used_s < START_UP_CPU_S_MAX
