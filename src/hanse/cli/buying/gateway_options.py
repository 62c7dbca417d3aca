"""The settings of a running gateway as options, and as they stand in its file later on.

`hanse gateway start` makes its settings here, and makes them again at SIGHUP: flags and the
environment as they were at the start, the rest from the file as it is now.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.buying.choosing_options import read_choosing
from hanse.cli.framework import option_block
from hanse.cli.session import Session
from hanse.cli.settings import CONFIG_META, read_settings
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:  # help and completion must not wait for the gateway's own imports
    from hanse.gateway.settings import GatewaySettings

_log = logging.getLogger("hanse.gateway")

_OTHERWISE_NAMED = ("allowed_origin", "key", "trial_percent")
"""Options that are a gateway's settings under another name."""

_OF_BUYING = frozenset(
    [
        "audit",
        "auto_dispute",
        "evidence",
        "fund_below",
        "fund_model",
        "fund_never",
        "fund_per_day",
        "fund_providers",
        "fund_to",
        "idle_hours",
        "key",
        "keyring",
        "policy",
        "region",
        "return_to",
        "signer",
        "telemetry_to_providers",
        "traces",
        "traces_days",
        "trial_percent",
    ]
)
"""Options that mean nothing where servers of one's own are asked."""

staying_options = option_block(
    click.option(
        "--shared-port",
        is_flag=True,
        help="Let another gateway that says so too take the same port, to restart without a gap.",
    ),
    click.option(
        "--queue-max", type=click.IntRange(0), default=1_024, help="Requests that wait for a place."
    ),
    click.option(
        "--queue-wait-s",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        help="Seconds that one waits there at most.",
    ),
    click.option(
        "--market-wait-s",
        type=click.FloatRange(0, 600),
        default=1.0,
        help="Seconds for which the market is asked again while nobody can be asked.",
    ),
    click.option(
        "--silence-s",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        help="Seconds without a frame after which another provider goes on.",
    ),
    click.option(
        "--first-token-s",
        type=click.FloatRange(0, min_open=True),
        default=120.0,
        help="The same before the first one.",
    ),
    click.option(
        "--turns-max",
        type=click.IntRange(0, 16),
        default=2,
        help="Other providers that an answer is taken to after one had begun it.",
    ),
    click.option(
        "--hedge-after-s",
        type=click.FloatRange(0, 600),
        default=0.0,
        help="Seconds after which a late first token is asked of a second provider too; 0 for no.",
    ),
    click.option(
        "--fallback-url",
        default="",
        metavar="URL",
        help="OpenAI-compatible server for when the market has nothing; its key: "
        "HANSE_FALLBACK_KEY.",
    ),
    click.option("--fallback-model", default="", help="Model to ask of it. [default: the same]"),
    click.option("--canned-text", default="", help="Sentence for when that has nothing either."),
    click.option(
        "--structured-then",
        type=click.Choice(("repair", "elsewhere")),
        default="repair",
        help="What follows an answer that does not fit its JSON schema, once.",
    ),
    click.option(
        "--telemetry-url",
        default="",
        metavar="URL",
        help="OpenTelemetry collector (OTLP over HTTP) for traces of requests, without content.",
    ),
    click.option(
        "--telemetry-share",
        type=click.FloatRange(0, 1),
        default=1.0,
        help="Of the requests that no application traces, the part that is traced.",
    ),
    click.option(
        "--telemetry-to-providers/--no-telemetry-to-providers",
        default=False,
        help="Give providers the trace's id too.",
    ),
)
"""How a gateway stays up, judges answers and is seen; docs/gateway/ tells of each."""


def make_settings(options: dict[str, Any]) -> "GatewaySettings":
    """A gateway's settings: each that an option has the name of, and those below.

    Raises:
        RequestError: `configuration_invalid`, naming the setting; `invalid_request` for a policy or
            region.
    """
    from hanse.gateway.settings import GatewaySettings

    names = [name for name in GatewaySettings.__struct_fields__ if name in options]
    named = {name: options[name] for name in names} | read_choosing(options)
    origins = tuple(options["allowed_origin"])
    return GatewaySettings(**named, allowed_origins=origins, wallet_key=options["key"])


def find_config(ctx: click.Context) -> Path | None:
    """The file of `--config`, if one was given."""
    found: Path | None = ctx.meta.get(CONFIG_META)
    return found


def list_unused(ctx: click.Context) -> str:
    """Options of buying that somebody set for a gateway that buys nothing; empty for none."""
    default = click.core.ParameterSource.DEFAULT
    return ", ".join(
        "--" + name.replace("_", "-")
        for name in sorted(_OF_BUYING)
        if ctx.get_parameter_source(name) is not default
    )


def read_again(ctx: click.Context, path: Path) -> "GatewaySettings":
    """The settings of a command that was called like this one, with its file as it is now.

    What the file says otherwise than at the start, and only a start takes, is logged by name.

    Raises:
        RequestError: `configuration_invalid`, naming file and key.
    """
    fresh = _parse(ctx.command, path)
    given = {name: value for name, value in ctx.params.items() if _is_given(ctx, name)}
    options = fresh.params | given
    settings = _make_of_file(path, options)
    late = _list_late(ctx, options)
    if not _is_given(ctx, "database") and _get_database(fresh) != _get_database(ctx):
        late.append("database")
    if late:
        _log.warning("these take a restart, and stay as they are: %s", ", ".join(late))
    return settings


def read_file(command: click.Command, path: Path) -> "GatewaySettings":
    """The settings that the file alone gives.

    Raises:
        RequestError: `configuration_invalid`, naming file and key.
    """
    return _make_of_file(path, _parse(command, path).params)


def _make_of_file(path: Path, options: dict[str, Any]) -> "GatewaySettings":
    try:
        return make_settings(options)
    except RequestError as error:
        text = f"{path}: {error.message}"
        raise RequestError("configuration_invalid", text, param=error.param) from None


def _list_late(ctx: click.Context, options: dict[str, Any]) -> list[str]:
    """Options that differ from those of the start and are none of a gateway's settings."""
    from hanse.gateway.settings import GatewaySettings

    settings = {*GatewaySettings.__struct_fields__, *_OTHERWISE_NAMED}
    changed = [name for name, value in options.items() if value != ctx.params[name]]
    return [name for name in changed if name not in settings]


def _is_given(ctx: click.Context, name: str) -> bool:
    """Whether a flag or the environment says it, so that the file does not."""
    given = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    return ctx.get_parameter_source(name) in given


def _get_database(ctx: click.Context) -> str:
    return ctx.ensure_object(Session).database


def _parse(command: click.Command, path: Path) -> click.Context:
    if not path.is_file():
        raise RequestError("configuration_invalid", f"{path}: the file is not there any more")
    settings = read_settings(path, command)
    try:
        return command.make_context(command.name, [], default_map=settings, resilient_parsing=False)
    except click.UsageError as error:
        raise RequestError("configuration_invalid", f"{path}: {error.format_message()}") from None
