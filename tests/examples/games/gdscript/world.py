"""Stand-ins for what the Godot client calls of Godot: values' methods, JSON, time, frames.

Each does what Godot 4's class reference says for the calls that the client makes, and no more:
numbers of JSON are floats, keys are written sorted, letters beyond ASCII stay as they are, `int`
takes the digits of a text. Packed arrays are lists here, shared like Godot's.
"""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.examples.games.gdscript.http_client import HTTPClient
from tests.examples.games.gdscript.objects import GodotError


def _check_text(value: Any) -> str:
    if type(value) is not str:
        raise GodotError(f"{value!r} where Godot wants a String")
    return value


def get_slice(text: str, delimiter: str, index: int) -> str:
    parts = text.split(delimiter)
    return parts[index] if index < len(parts) else ""


def to_int(value: Any) -> int:
    if not isinstance(value, str):
        return int(value)
    digits = "".join(re.findall(r"\d", value.partition(".")[0]))
    return int(digits or 0) * (-1 if value.strip().startswith("-") else 1)


METHODS: dict[type, Mapping[str, Callable[..., Any]]] = {
    str: {
        "begins_with": str.startswith,
        "get_slice": get_slice,
        "join": lambda text, parts: text.join(map(_check_text, parts)),
        "length": len,
        "replace": str.replace,
        "strip_edges": lambda text: text.strip("".join(map(chr, range(33)))),
        "substr": lambda text, start, size=None: (
            text[start:] if size is None else text[start : start + size]
        ),
        "to_lower": str.lower,
        "trim_prefix": str.removeprefix,
        "unicode_at": lambda text, index: ord(text[index]),
    },
    list: {
        "append": list.append,
        "append_array": list.extend,
        "is_empty": lambda many: not many,
        "slice": lambda many, start: many[start:],
    },
    dict: {"get": dict.get, "is_empty": lambda many: not many},
    bytearray: {
        "append_array": bytearray.extend,
        "find": bytearray.find,
        "is_empty": lambda many: not many,
        "get_string_from_utf8": lambda many: many.decode(),
        "slice": lambda many, start, end=None: many[start:end],
    },
}
"""The methods of Godot's own values, by the type that stands for them."""


class Json:
    @staticmethod
    def stringify(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def parse_string(text: str) -> Any:
        try:
            return json.loads(_check_text(text), parse_int=float)
        except ValueError:
            return None


class Marshalls:
    @staticmethod
    def base64_to_utf8(text: str) -> str:
        try:
            return base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""


class RegEx:
    """By Python's expressions, which agree with PCRE2 on what the client uses."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern, re.ASCII)

    @classmethod
    def create_from_string(cls, pattern: str) -> "RegEx":
        return cls(pattern)

    def search(self, text: str) -> "RegExMatch | None":
        found = self._pattern.search(text)
        return RegExMatch(found) if found else None


class RegExMatch:
    def __init__(self, found: re.Match[str]) -> None:
        self._found = found

    def get_end(self) -> int:
        return self._found.end()


class Time:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def get_ticks_msec(self) -> int:
        return int(self._clock() * 1000)


class Frame:
    """The signal of the next frame; no frame lasts longer here than the event loop's turn."""

    async def wait(self) -> None:
        await asyncio.sleep(0)


class SceneTree:
    process_frame = Frame()


class NoCallable:
    """What `Callable()` makes."""

    def is_valid(self) -> bool:
        return False


def check_assertion(holds: object, message: str) -> None:
    if not holds:
        raise GodotError(message)


def make_world(clock: Callable[[], float]) -> dict[str, Any]:
    """The names that Godot gives to every script, as far as the client uses them."""
    return {
        "Callable": NoCallable,
        "HTTPClient": HTTPClient,
        "JSON": Json,
        "Marshalls": Marshalls,
        "OK": 0,
        "PackedByteArray": bytearray,
        "PackedStringArray": lambda many=(): list(many),
        "RegEx": RegEx,
        "Time": Time(clock),
        "assert": check_assertion,
        "get_tree": SceneTree,
        "int": to_int,
    }
