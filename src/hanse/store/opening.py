"""Any store by one setting: `--database URL`, HANSE_DATABASE, or a path.

| text | store |
| --- | --- |
| `postgresql://user@host:port/name` | PostgreSQL; `postgres://` means the same |
| the same with `?schema=books` | in a schema of that database, made if it is not there |
| `sqlite:///relative/path`, `sqlite:////absolute/path`, a plain path | SQLite |
| `memory:`, `:memory:` | in memory, gone with the process |

A URL may hold a password, so it is never printed: `get_database_name` is what may be.
"""

import os
import re
from urllib.parse import unquote, urlsplit

from hanse.protocol.errors import RequestError
from hanse.store.database import Database
from hanse.store.sqlite import open_sqlite

MEMORY = ":memory:"

_POSTGRES = ("postgresql://", "postgres://")
_SQLITE = "sqlite:///"

SCHEMA = re.compile(r"([?&])schema=([A-Za-z0-9._-]{1,63})(?:&|$)")
"""The one parameter of a URL that is ours and not libpq's."""


async def open_database(
    url_or_path: str | os.PathLike[str], *, is_served: bool = False
) -> Database:
    """Open the store that a setting names; `is_served` as in `open_sqlite`.

    Raises:
        RequestError: `configuration_invalid` for a URL of another kind, or without the extra that
            it needs.
        TransientError: `store_unavailable`.
    """
    text = os.fspath(url_or_path)
    if is_shared(text):
        try:
            from hanse.store.postgres import open_postgres
        except ImportError:
            raise RequestError(
                "configuration_invalid",
                "PostgreSQL needs an extra: pip install 'hanse[postgres]'",
            ) from None
        return await open_postgres(text)
    return await open_sqlite(get_sqlite_path(text), is_served=is_served)


async def open_memory() -> Database:
    """A store that ends with the process, for tests and for trying things out."""
    return await open_sqlite(MEMORY)


def is_shared(url_or_path: str | os.PathLike[str]) -> bool:
    """Whether several processes on several machines may work with it."""
    return os.fspath(url_or_path).startswith(_POSTGRES)


def with_schema(url_or_path: str, name: str) -> str:
    """One database for several sets of books: the URL with `schema=name`, unless it names one.

    A path stays as it is.
    """
    if not is_shared(url_or_path) or SCHEMA.search(url_or_path):
        return url_or_path
    return f"{url_or_path}{'&' if '?' in url_or_path else '?'}schema={name}"


def has_password(url_or_path: str | os.PathLike[str]) -> bool:
    """Whether the text holds a password, and so does not belong on a command line."""
    text = os.fspath(url_or_path)
    if not is_shared(text):
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return True  # unreadable, and perhaps for its password
    return parts.password is not None or "password=" in parts.query


def get_database_name(url_or_path: str | os.PathLike[str]) -> str:
    """The store for people: a path, or a URL without its password."""
    text = os.fspath(url_or_path)
    if not is_shared(text):
        return get_sqlite_path(text)
    try:
        parts = urlsplit(text)
        user = f"{parts.username}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{user}{parts.hostname or ''}{port}{parts.path}"
    except ValueError:
        return "postgresql://"


def get_sqlite_path(text: str) -> str:
    """The file that a text names.

    Raises:
        RequestError: `configuration_invalid` for a URL of another kind.
    """
    if text in ("memory:", MEMORY):
        return MEMORY
    if text.startswith(_SQLITE):
        return unquote(text.removeprefix(_SQLITE))
    if "://" in text:
        scheme = text.partition("://")[0][:20]
        raise RequestError(
            "configuration_invalid",
            f"{scheme!r} is no store: use postgresql://, sqlite:/// or a path",
        )
    return text
