"""The how-to page names commands, options and exit codes that exist."""

import re
from pathlib import Path

import click

from hanse.cli.failures import EXIT_INTERRUPTED
from hanse.cli.main import hanse
from hanse.cli.reference import iterate_commands
from hanse.protocol.errors import ERROR_TABLE

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "command-line.md").read_text("utf-8")


def test_every_command_line_on_the_page_parses_as_far_as_its_options():
    known = {" ".join(path): command for path, command in iterate_commands()}
    lines = re.findall(r"^\$ (hanse .*?)(?: +#.*)?$", PAGE, re.MULTILINE)
    lines += re.findall(r"`(hanse [a-z][^`]*)`", PAGE)
    assert len(lines) > 15
    for line in lines:
        words = line.split()
        if words[1] == "up":
            continue
        depth = max(n for n in range(1, len(words) + 1) if " ".join(words[:n]) in known)
        command = known[" ".join(words[:depth])]
        assert not isinstance(command, click.Group), line
        flags = {flag for param in command.params for flag in param.opts}
        for word in words[depth:]:
            if word.startswith("-"):
                assert word in flags, f"{word} in {line}"


def test_every_exit_code_is_on_the_page():
    codes = {row.exit_code for row in ERROR_TABLE.values()} | {0, EXIT_INTERRUPTED}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert listed == codes


def test_the_settings_file_on_the_page_is_one(tmp_path):
    text = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL).group(1)
    from hanse.cli.settings import read_settings

    file = tmp_path / "provider.toml"
    file.write_text(text)
    group = hanse.get_command(click.Context(hanse), "provider")
    assert read_settings(file, group.commands["start"])["threads"] == 2
