"""The model that an audit runs, as options name it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import option_block
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.auditor.opened_model import Keyed

FILE = click.Path(path_type=Path, dir_okay=False)

CONTEXT = click.option(
    "--context", type=click.IntRange(64, 1_048_576), default=4_096, metavar="TOKENS",
    help="Longest prompt and answer together. [default: 4096]",
)  # fmt: skip


def model_options(*, needs_model: bool, many: bool = False) -> Callable[..., Any]:
    """What runs a model, for the commands that do; `many` for copies of several providers."""
    several = "; may be repeated" if many else ""
    return option_block(
        click.option(
            "--model", required=needs_model, metavar="FILE",
            help="The copy (GGUF) to run; with --copy and --master the plain model.",
        ),
        click.option(
            "--copy", "copy_file", type=FILE, metavar="FILE.copy.json", multiple=many,
            help=f"Description of the copy that is audited by its key{several}.",
        ),
        click.option("--master", type=FILE, help="Master key of that copy."),
        click.option(
            "--runtime", type=click.Choice(["llama", "torch"]), default="llama",
            help="What runs it. [default: llama]",
        ),
        click.option(
            "--threads", type=click.IntRange(1, 256), default=2, help="Processor threads."
        ),
    )  # fmt: skip


def find_audited(options: dict[str, Any]) -> Path:
    """The file of `--model`, once everything that runs it is installed.

    Raises:
        RequestError: `configuration_invalid`, with the command that installs what is missing.
    """
    from hanse.cli.modelling.places import find_model

    check_runtime(options["runtime"])
    return find_model(options["model"])


def check_runtime(runtime: str) -> None:
    """Refuse a runtime that is not installed.

    Raises:
        RequestError: `configuration_invalid`, with the command that installs what is missing.
    """
    from hanse.cli.modelling.places import check_extra

    check_extra("cyllama", "numpy", *(["torch"] if runtime == "torch" else []))


def find_keyed(options: dict[str, Any]) -> "Keyed | None":
    """What `--copy` and `--master` say together; None without both.

    Raises:
        RequestError: `usage` for one without the other; or the master key cannot be read.
    """
    from hanse.auditor.opened_model import Keyed
    from hanse.cli.modelling.copies.master_keys import read_master

    description, master = options["copy_file"], options["master"]
    if (description is None) != (master is None):
        raise RequestError("usage", "--copy and --master belong together")
    return None if description is None else Keyed(description, read_master(master), master)


def find_all_keyed(options: dict[str, Any]) -> "list[Keyed]":
    """The same where `--copy` may be repeated; none without both."""
    each = options["copy_file"] or (None,)
    found = [find_keyed(options | {"copy_file": one}) for one in each]
    return [keyed for keyed in found if keyed is not None]
