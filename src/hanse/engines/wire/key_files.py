"""The key of somebody's API, from an environment variable or a private file, never an argument."""

import os
import stat
from pathlib import Path

from hanse.protocol.errors import RequestError

KEY_BYTES_MAX = 8_192
"""An API key's file; the longest tokens in use are about half of that."""


def read_key(key_file: str, key_env: str) -> str:
    """The API key, or empty if none is configured.

    Raises:
        RequestError: it is configured but missing, or its file is open to others.
    """
    if key_file:
        return _read_key_file(Path(key_file))
    if not key_env:
        return ""
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise RequestError(
            "configuration_invalid",
            f"The environment variable {key_env} is empty; put the upstream's key there.",
            param="key_env",
        )
    return key


def _read_key_file(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise RequestError(
                "keystore_permissions",
                "The upstream's key file is open to others; run: chmod 600 on it.",
                param="key_file",
            )
        with path.open("rb") as file:
            key = file.read(KEY_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            "configuration_invalid", "The upstream's key file cannot be read.", param="key_file"
        ) from error
    if not key:
        raise RequestError(
            "configuration_invalid", "The upstream's key file is empty.", param="key_file"
        )
    return key
