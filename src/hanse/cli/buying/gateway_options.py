"""The settings of a running gateway as options, and as they stand in its file later on.

`hanse gateway start` makes its settings here, and makes them again at SIGHUP: flags and the
environment as they were at the start, the rest from the file as it is now.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.settings import CONFIG_META, read_settings
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:  # help and completion must not wait for the gateway's own imports
    from hanse.gateway.settings import GatewaySettings

_OPTIONS = (
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


def staying_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a gateway stays up, judges answers and is seen; docs/gateway/ tells of each."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_settings(options: dict[str, Any]) -> "GatewaySettings":
    """A gateway's settings.

    Raises:
        RequestError: `configuration_invalid`, naming the setting.
    """
    from hanse.gateway.settings import GatewaySettings

    names = ("host", "port", "requests_max", "body_bytes_max", "drain_s", "access_log")
    more = (
        *(
            "shared_port",
            "queue_max",
            "queue_wait_s",
            "market_wait_s",
            "silence_s",
            "first_token_s",
            "turns_max",
            "hedge_after_s",
        ),
        *("fallback_url", "fallback_model", "canned_text", "structured_then"),
        *("telemetry_url", "telemetry_share", "telemetry_to_providers"),
    )
    return GatewaySettings(
        **{name: options[name] for name in (*names, *more)},
        allowed_origins=tuple(options["allowed_origin"]),
        wallet_key=options["key"],
    )


def find_config(ctx: click.Context) -> Path | None:
    """The file of `--config`, if one was given."""
    found: Path | None = ctx.meta.get(CONFIG_META)
    return found


def read_again(ctx: click.Context, path: Path) -> "GatewaySettings":
    """The settings of a command that was called like this one, with its file as it is now.

    Raises:
        RequestError: `configuration_invalid`, naming file and key.
    """
    return _make_of_file(path, _parse_again(ctx, path))


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
        raise RequestError(error.code, f"{path}: {error.message}", param=error.param) from None


def _parse_again(ctx: click.Context, path: Path) -> dict[str, Any]:
    fresh = _parse(ctx.command, path).params
    given = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    kept = {
        name: value for name, value in ctx.params.items() if ctx.get_parameter_source(name) in given
    }
    return {**fresh, **kept}


def _parse(command: click.Command, path: Path) -> click.Context:
    if not path.is_file():
        raise RequestError("configuration_invalid", f"{path}: the file is not there any more")
    settings = read_settings(path, command)
    try:
        return command.make_context(command.name, [], default_map=settings, resilient_parsing=False)
    except click.UsageError as error:
        raise RequestError("configuration_invalid", f"{path}: {error.format_message()}") from None
