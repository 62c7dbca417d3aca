"""Settings from a TOML file: `--config FILE` for commands that run for long.

A key of the file is an option's name with underscores: `--receipt-key` is `receipt_key`. Flags
override the file, the file overrides the defaults; both pass the same checks, since the file's
values become the defaults of click's own options. A key that no option has is refused by name, so
that a typing error never silently leaves a default in force.

    port = 8801
    model = "smollm2-135m-instruct"
    output_price = "0.60"        # amounts are text: a binary fraction is not exact
"""

import difflib
import os
import signal
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hanse.cli.session import DATABASE_VARIABLE, Session
from hanse.protocol.errors import RequestError

SETTINGS_BYTES_MAX = 65_536
"""A settings file has a few hundred bytes; a larger one is the wrong file."""

CONFIG_META = "hanse.config"
"""Where a command's context keeps the path of its file."""

_NOT_SETTINGS = frozenset({"home", "json", "help", "config"})


def config_option() -> click.Option:
    """The `--config FILE` option."""
    return click.Option(
        ["--config"],
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_apply_file,
        help="TOML file with any of these settings; flags override it.",
    )


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The `--database URL` option of a command that runs for long; it goes into the session."""
    return click.option(
        "--database",
        metavar="URL",
        envvar=DATABASE_VARIABLE,
        expose_value=False,
        callback=_choose_database,
        help="PostgreSQL for the books, postgresql://...; also HANSE_DATABASE. [default: a file]",
    )(command)


def while_stdin_open_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The `--while-stdin-open` option of a command that serves.

    A parent that is killed can stop nobody, but the pipe that it held closes whatever ends it.
    """
    return click.option(
        "--while-stdin-open",
        is_flag=True,
        expose_value=False,
        callback=_stop_with_stdin,
        help="Stop, as at SIGTERM, when standard input ends: a parent that is killed takes it "
        "along.",
    )(command)


def traces_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The `--traces` options of a command that buys or sells; see `hanse.cli.tracing`."""
    days = click.option(
        "--traces-days", type=click.IntRange(0), default=30, help="Days they are kept; 0 for ever."
    )
    location = click.option(
        "--traces",
        default="",
        metavar="LOCATION",
        help="Keep encrypted traces of requests here: a folder or s3://BUCKET/PREFIX."
        " [default: off]",
    )
    return location(days(command))


def list_settings(command: click.Command) -> dict[str, click.Option]:
    """The options that a file may set, by key."""
    return {
        param.name: param
        for param in command.params
        if isinstance(param, click.Option) and param.name and param.name not in _NOT_SETTINGS
    }


def read_settings(path: Path, command: click.Command) -> dict[str, Any]:
    """Read the file and check its keys and the kinds of its values against the command's options.

    Raises:
        RequestError: `configuration_invalid`, naming file and key.
    """
    if path.stat().st_size > SETTINGS_BYTES_MAX:
        raise _invalid(path, f"it has more than {SETTINGS_BYTES_MAX} bytes")
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(path, str(error)) from None
    known = list_settings(command)
    unknown = [key for key in found if key not in known]
    if unknown:
        raise _invalid(path, "; ".join(_describe_unknown(key, known) for key in unknown))
    for key, value in found.items():
        _verify_kind(path, key, value, known[key])
    return found


def _apply_file(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.default_map = read_settings(value, ctx.command)
        ctx.meta[CONFIG_META] = value


def _choose_database(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    from hanse.store.opening import has_password

    if not value:
        return
    is_argument = ctx.get_parameter_source("database") is click.core.ParameterSource.COMMANDLINE
    if is_argument and has_password(value):
        raise RequestError(
            "usage",
            "the URL of --database holds a password, which everyone on this machine could read: "
            f"put the URL into {DATABASE_VARIABLE} or a --config file, or the password into a "
            "pass file (PGPASSFILE)",
        )
    session = ctx.find_object(Session)
    assert session is not None  # every command is given one
    session.database = value


def _describe_unknown(key: str, known: dict[str, click.Option]) -> str:
    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(sorted(known))})"
    return f"unknown setting {key!r}{hint}"


def _verify_kind(path: Path, key: str, value: object, option: click.Option) -> None:
    items = value if isinstance(value, list) else [value]
    if isinstance(value, list) != option.multiple:
        wanted = "a list" if option.multiple else "one value"
        raise _invalid(path, f"{key} must be {wanted}")
    if option.is_flag:
        allowed: tuple[type, ...] = (bool,)
    elif isinstance(option.type, click.types.IntParamType):
        allowed = (int,)
    elif isinstance(option.type, click.types.FloatParamType):
        allowed = (int, float)
    else:
        allowed = (str,)
    for item in items:
        if type(item) not in allowed:
            names = " or ".join(
                {"str": "text in quotes"}.get(t.__name__, t.__name__) for t in allowed
            )
            raise _invalid(path, f"{key} is {item!r:.60}, it must be {names}")


def _invalid(path: Path, reason: str) -> RequestError:
    return RequestError("configuration_invalid", f"{path}: {reason}")


def _stop_with_stdin(ctx: click.Context, param: click.Parameter, is_wanted: bool) -> None:
    if not is_wanted:
        return
    if sys.stdin is None:  # then descriptor 0 is the next file or connection that is opened
        raise click.UsageError("--while-stdin-open: standard input is closed", ctx)
    threading.Thread(target=_wait_for_end_of_stdin, daemon=True).start()


def _wait_for_end_of_stdin() -> None:
    while os.read(0, 4_096):  # nothing is ever meant by what is written there
        pass
    os.kill(os.getpid(), signal.SIGTERM)
