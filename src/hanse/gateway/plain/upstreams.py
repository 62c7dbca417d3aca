"""Which servers a plain gateway routes to: URL, models, API key.

    URL              serves whatever models it lists at URL/models
    URL=model,model  serves these, and is not asked which it has

The key comes from the environment, never from an argument, which others on the machine can read:
`HANSE_UPSTREAM_KEY` for the first server, `HANSE_UPSTREAM_KEY_2` for the second and so on. One
server's key is never sent to another.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.limits import NAME_CHARS_MAX

KEY_VARIABLE = "HANSE_UPSTREAM_KEY"

UPSTREAMS_MAX = 64
"""Servers behind one gateway; each is looked at for every request."""

MODELS_MAX = 1_000
"""Models of one server; commercial ones list a few hundred."""

_URL = re.compile(r"https?://[^\s/?#@=]+(/[^\s?#=]*)?")
_KEY = re.compile(r"[!-~]{1,8192}")


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """One server.

    Attributes:
        base_url: with the version, such as `http://127.0.0.1:8000/v1`.
        models: what it serves; empty for what it lists.
        key: its API key; empty for none.
    """

    base_url: str
    models: tuple[str, ...] = ()
    key: str = ""

    def __repr__(self) -> str:
        """Without the key."""
        return f"Upstream({self.base_url!r}, {self.models!r})"


def read_upstream(text: str, key: str = "") -> Upstream:
    """One server, as `--upstream` names it.

    Raises:
        RequestError: `configuration_invalid`.
    """
    url, _, rest = text.partition("=")
    if not _URL.fullmatch(url):
        _refuse("an upstream looks like https://host/v1 or https://host/v1=model,model")
    models = tuple(dict.fromkeys(name.strip() for name in rest.split(","))) if rest else ()
    if len(models) > MODELS_MAX or not all(0 < len(name) <= NAME_CHARS_MAX for name in models):
        _refuse(f"an upstream has 1 .. {MODELS_MAX} models of 1 .. {NAME_CHARS_MAX} characters")
    if key and not _KEY.fullmatch(key):
        _refuse("an upstream's key is 1 .. 8192 printable ASCII characters")
    return Upstream(base_url=url.rstrip("/"), models=models, key=key)


def read_upstreams(texts: Sequence[str], environment: Mapping[str, str]) -> list[Upstream]:
    """Every server, with its key from the environment.

    Raises:
        RequestError: `configuration_invalid`.
    """
    if not 0 < len(texts) <= UPSTREAMS_MAX:
        _refuse(f"{len(texts)} upstreams, expected 1 .. {UPSTREAMS_MAX}")
    found = []
    for number, text in enumerate(texts, 1):
        name = KEY_VARIABLE if number == 1 else f"{KEY_VARIABLE}_{number}"
        found.append(read_upstream(text, environment.get(name, "").strip()))
    return found


def _refuse(message: str) -> None:
    raise RequestError("configuration_invalid", message, param="upstream")
