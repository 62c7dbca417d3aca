"""Where a model is that was named on the command line."""

import importlib.util
from pathlib import Path

from hanse.protocol.errors import RequestError

PACKAGED = "packaged"


def find_model(text: str) -> Path:
    """The path of the model that was named.

    Raises:
        RequestError: `configuration_invalid`, the packaged one is not installed.
    """
    if text != PACKAGED:
        return Path(text).expanduser()
    from hanse.engines.gguf_files import find_packaged_model

    return find_packaged_model()


def check_extra(*modules: str) -> None:
    """Say how to install what is missing before anything is done.

    Raises:
        RequestError: `configuration_invalid`, with the command.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise RequestError(
            "configuration_invalid",
            f"{', '.join(missing)} is not installed; run: pip install 'hanse[models]'",
        )
