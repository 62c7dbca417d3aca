"""The engine that a provider's options ask for, with the cheats round it that they ask for too."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hanse.cli.cheating.files import make_coarse, make_shorter
from hanse.cli.cheating.names import REPLACING, WITH
from hanse.engines import Engine, open_engine
from hanse.engines.cheating import LateProver, Substitute, SystemDropper
from hanse.protocol.errors import RequestError

CONTEXT_TOKENS = 4_096
"""Engine llama's own default, for the prefill that proves late."""

KEY_VARIABLE = "HANSE_CHEAT_KEY"
"""Holds the API key of what `forward` forwards to, where that wants one."""


def open_cheating_engine(
    name: str, settings: Mapping[str, Any], cheats: Sequence[str], served: str | None
) -> Engine:
    """The engine `name`, behind whose offer these cheats happen; an honest one if there are none.

    Args:
        name: of the engine that is offered.
        settings: its settings.
        cheats: checked by `check_cheats`; those of brokers are passed over.
        served: `--cheat-with`.

    Raises:
        RequestError: a cheat does not fit the engine, or a file cannot be served or made.
        VerificationError: `model_invalid`, a file is broken.
    """
    engine = open_engine(name, settings)
    for cheat in cheats:
        if cheat in REPLACING:
            engine = _replace(engine, name, dict(settings), cheat, served or "")
    return SystemDropper(engine) if "drop-system" in cheats else engine


def _replace(
    promised: Engine, name: str, settings: dict[str, Any], cheat: str, served: str
) -> Engine:
    if cheat == "forward":
        return Substitute(promised, _open_forward(settings, served))
    if name != "llama":
        raise RequestError("usage", f"--cheat {cheat} is for engine 'llama', this is {name!r}")
    if cheat == "kv4":
        return Substitute(promised, open_engine(name, settings | {"cache_type": "q4_0"}))
    path = _choose_file(settings, cheat, served)
    other = open_engine(name, settings | {"model_path": str(path)})
    if cheat == "cheap-text-prefill":
        other = LateProver(
            other,
            _get_promised(settings, cheat),
            context_tokens=int(settings.get("context_tokens", CONTEXT_TOKENS)),
            threads=_get_threads(settings),
        )
    return Substitute(promised, other)


def _choose_file(settings: dict[str, Any], cheat: str, served: str) -> Path:
    if cheat not in WITH:
        source, cache_dir = _get_promised(settings, cheat), Path(settings["cache_dir"])
        if cheat == "skip-layer":
            return make_shorter(source, cache_dir)
        return make_coarse(source, cache_dir, _get_threads(settings))
    path = Path(served).expanduser()
    if not path.is_file():
        raise RequestError(
            "configuration_invalid", f"--cheat {cheat}: there is no model file {path}"
        )
    return path


def _open_forward(settings: dict[str, Any], served: str) -> Engine:
    url, _, model = served.partition("#")
    if not settings.get("model"):
        raise RequestError("usage", "--cheat forward needs --model: the name that is offered")
    asked = {"base_url": url, "model": settings["model"], "upstream_model": model}
    if KEY_VARIABLE in os.environ:
        asked["key_env"] = KEY_VARIABLE
    limits = ("context_tokens", "output_tokens_max", "parallel")
    return open_engine("upstream", asked | {k: settings[k] for k in limits if k in settings})


def _get_promised(settings: dict[str, Any], cheat: str) -> Path:
    path = Path(str(settings.get("model_path", ""))).expanduser()
    if not path.is_file():
        raise RequestError(
            "configuration_invalid",
            f"--cheat {cheat} needs the promised model as a file: --engine-setting model_path=FILE",
        )
    return path


def _get_threads(settings: dict[str, Any]) -> int:
    return int(settings.get("threads") or 2)
