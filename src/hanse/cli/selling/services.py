"""What `hanse provider start` sells: one engine, its answers, and its vectors if they have a price.

The services of one process share the engine. Answers are the service of the number asked for,
vectors the next one.
"""

import json
from typing import Any

from hanse.cli.amounts import AssetUnits
from hanse.cli.cheating.engines import open_cheating_engine
from hanse.cli.network import Network
from hanse.cli.session import Session
from hanse.engines import Operation
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Prices
from hanse.provider import Service

ANSWERS = frozenset({Operation.CHAT, Operation.COMPLETION})
VECTORS = frozenset({Operation.EMBEDDINGS})


def open_services(session: Session, network: Network, options: dict[str, Any]) -> list[Service]:
    """The services of the command's options, over an engine that is not started yet.

    Raises:
        RequestError: an option does not fit the engine, or an amount is malformed.
    """
    settings, cheats = _get_engine_settings(session, options), options["cheat"]
    engine = open_cheating_engine(options["engine"], settings, cheats, options["cheat_with"])
    number, model, units = options["service_id"], options["model"], network.units
    prices, price = _get_prices(units, options), options["embeddings_price"]
    label = "tee" if options.get("attest") else "reputation"
    if price is None:
        if options["embeddings_model"]:
            raise RequestError("usage", "--embeddings-model needs --embeddings-price")
        return [Service(number, engine, prices, model=model, verifiability=label)]
    each = units.parse(price)
    return [
        Service(number, engine, prices, model=model, only=ANSWERS, verifiability=label),
        Service(
            number + 1,
            engine,
            Prices(each, each, 0),
            model=options["embeddings_model"] or model,
            only=VECTORS,
            verifiability=label,
        ),
    ]


def _get_prices(units: AssetUnits, options: dict[str, Any]) -> Prices:
    input_price = units.parse(options["input_price"])
    cached = options["cached_price"]
    return Prices(
        input_price,
        units.parse(cached) if cached is not None else input_price,
        units.parse(options["output_price"]),
    )


def _get_engine_settings(session: Session, options: dict[str, Any]) -> dict[str, Any]:
    engine = options["engine"]
    settings: dict[str, Any] = {}
    if engine == "llama":
        settings["cache_dir"] = str(session.home / "cache")
    if options["model"] and engine in ("llama", "upstream", "whisper", "hibari"):
        settings["model"] = options["model"]
    for option, setting, owner in (
        ("threads", "threads", "llama"),
        ("upstream_url", "base_url", "upstream"),
        ("upstream_key_env", "key_env", "upstream"),
    ):
        value = options[option]
        if value is None:
            continue
        if engine != owner:
            flag = "--" + option.replace("_", "-")
            raise RequestError("usage", f"{flag} is for engine {owner!r}, this is {engine!r}")
        settings[setting] = value
    for text in options["engine_setting"]:
        name, found, value = text.partition("=")
        if not found:
            raise RequestError("usage", f"--engine-setting {text!r:.60} is not NAME=VALUE")
        settings[name] = _read_value(value)
    return settings


def _read_value(text: str) -> Any:
    """JSON where it is some (numbers, true, lists), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
