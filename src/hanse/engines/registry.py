"""Engines by name; a new engine is one file.

`open_engine("llama", settings)` imports `hanse.engines.llama_engine` and hands the settings to the
module's `open_engine`. So the file's name registers the engine, nothing else is edited, and an
engine that nobody opens costs no import. A name with a dot is a module outside this package, for
engines kept elsewhere.

Settings come from the operator's own file or command line, never from a caller.
"""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

import msgspec

from hanse import engines
from hanse.engines.base import Engine
from hanse.protocol.errors import RequestError

_SUFFIX = "_engine"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}(\.[A-Za-z0-9_]{1,60}){0,8}")


def list_engines() -> tuple[str, ...]:
    """Names of the engines in this package, sorted."""
    found = (module.name for module in pkgutil.iter_modules(engines.__path__))
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


def open_engine(name: str, settings: Mapping[str, Any] | None = None) -> Engine:
    """Make the engine of this name; `start()` it next.

    Args:
        name: one of `list_engines()`, or a dotted module that has `open_engine` and `Settings`.
        settings: fields of that module's `Settings`; an unknown or ill-typed one is refused.

    Raises:
        RequestError: no such engine, or a setting is wrong (`configuration_invalid`).
    """
    module = _import_engine(name)
    if not (hasattr(module, "Settings") and hasattr(module, "open_engine")):
        raise RequestError("configuration_invalid", f"Module {name!r} holds no engine.")
    try:
        checked = msgspec.convert(dict(settings or {}), module.Settings, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(
            "configuration_invalid", f"Setting of engine {name!r}: {error}."
        ) from error
    return cast(Engine, module.open_engine(checked))


def _import_engine(name: str) -> ModuleType:
    if not _NAME.fullmatch(name):
        raise RequestError(
            "configuration_invalid", f"{name!r} is no engine's name; try one of {list_engines()}."
        )
    target = name if "." in name else f"{engines.__name__}.{name}{_SUFFIX}"
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if not error.name or not f"{target}.".startswith(f"{error.name}."):
            raise RequestError(
                "configuration_invalid",
                f"Engine {name!r} needs the package {error.name!r}, which is not installed; "
                f"run: pip install 'hanse[{name}]'",
            ) from error
        raise RequestError(
            "configuration_invalid",
            f"There is no engine {name!r}; these are here: {', '.join(list_engines())}.",
        ) from error
