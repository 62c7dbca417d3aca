"""Our SQL in PostgreSQL's words: placeholders, column types, parameters.

Statements are the same text for both engines. What differs is said here, and nowhere else:

| written | PostgreSQL | why |
| --- | --- | --- |
| `?` | `$1`, `$2`, ... | its own placeholders; values never become part of the text |
| INTEGER | BIGINT | its INTEGER ends at 31 bits |
| BLOB | BYTEA | |
| TEXT | TEXT COLLATE "C" | SQLite compares bytes; a locale would sort and look up otherwise |
| int | 8 bytes | one prepared statement whatever the value |
| NUL in text | U+FFFD | it has no NUL, and providers choose some of the texts that are stored |

Source: PostgreSQL's documentation on lexical structure, collations and extended queries.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

STATEMENTS_KEPT = 1_024
"""Translated statements remembered; the program has some two hundred."""

_PIECES = re.compile(
    r"""'(?:[^']|'')*'      # a literal
      | "(?:[^"]|"")*"      # a name
      | --[^\n]*            # a comment
      | /\*.*?\*/
      | \?                  # a placeholder
    """,
    re.VERBOSE | re.DOTALL,
)
_TYPES = re.compile(r"\b(INTEGER|BLOB|TEXT)\b")
_NATIVE = {"INTEGER": "BIGINT", "BLOB": "BYTEA", "TEXT": 'TEXT COLLATE "C"'}


@lru_cache(STATEMENTS_KEPT)
def to_native(sql: str) -> str:
    """A statement with `$n` for each `?` that stands outside literals, names and comments."""
    number = 0

    def replace(found: re.Match[str]) -> str:
        nonlocal number
        if found[0] != "?":
            return found[0]
        number += 1
        return f"${number}"

    return _PIECES.sub(replace, sql)


def to_native_types(statement: str) -> str:
    """A statement of a table script with PostgreSQL's column types."""
    return _TYPES.sub(lambda found: _NATIVE[found[1]], statement)


def to_parameters(parameters: Sequence[Any]) -> list[Any]:
    """Values as plain int, str, bytes, float or None: what the connection has dumpers for."""
    return [_to_parameter(value) for value in parameters]


def _to_parameter(value: Any) -> Any:
    if isinstance(value, str):
        text = str.__str__(value)
        return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return value
