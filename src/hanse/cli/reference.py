"""Writes docs/cli.md: every command's help text, generated so that it cannot drift.

    python -m hanse.cli.reference > docs/cli.md

A test compares the file with `render_reference()`.
"""

import sys
from collections.abc import Iterator

import click

from hanse.cli.main import hanse
from hanse.cli.settings import list_settings

HEAD = """# Command line reference

Generated from the commands themselves by
`python -m hanse.cli.reference > docs/cli.md`; do not edit.
How to use them: [how-to/command-line.md](how-to/command-line.md).
"""

COLUMNS = 96
"""Width of the help texts on the page, whatever the terminal."""


def iterate_commands(
    command: click.Command = hanse, path: tuple[str, ...] = ("hanse",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group with its words, depth first."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from iterate_commands(found, (*path, name))


def render_reference() -> str:
    """The page."""
    parts = [HEAD]
    for path, command in iterate_commands():
        words = " ".join(path)
        context = click.Context(
            command,
            info_name=words,
            terminal_width=COLUMNS,
            max_content_width=COLUMNS,
            help_option_names=["-h", "--help"],
        )
        depth = "#" * min(len(path) + 1, 4)
        parts.append(f"{depth} {words}\n\n```text\n{command.get_help(context)}\n```\n")
        if any(param.name == "config" for param in command.params):
            parts.append(_render_settings(command))
    return "\n".join(parts)


def _render_settings(command: click.Command) -> str:
    rows = [
        "Keys of its settings file (`--config`):\n",
        "| key | kind | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for key, option in list_settings(command).items():
        help_text = (option.help or "").split(" [default:")[0].replace("|", "\\|")
        rows.append(f"| `{key}` | {_name_kind(option)} | {_name_default(option)} | {help_text} |")
    return "\n".join(rows) + "\n"


def _name_kind(option: click.Option) -> str:
    if option.multiple:
        return "list of texts"
    if option.is_flag:
        return "true or false"
    if isinstance(option.type, click.types.IntParamType):
        return "integer"
    return "number" if isinstance(option.type, click.types.FloatParamType) else "text"


def _name_default(option: click.Option) -> str:
    help_text = option.help or ""
    if "[default:" in help_text:
        return help_text.partition("[default:")[2].rstrip("] ").strip()
    default = option.to_info_dict()["default"]
    if option.is_flag:
        return "true" if default else "false"
    return f"`{default}`" if default not in (None, "", (), []) else ""


if __name__ == "__main__":
    sys.stdout.write(render_reference())
