"""Why a call reverted, in words.

Three shapes occur: `Error(string)` from `assert x, "reason"` and `raise "reason"`, `Panic(uint256)`
from compiler checks, and a contract's own error types. What is none of these is shown as hex, never
dropped.

Source: the Solidity ABI specification, "Revert" and "Panic"; Vyper uses the first and reverts with
    no data elsewhere.
"""

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

REASON_CHARS_MAX = 300
"""A reason shown to people; a hostile contract may return kilobytes."""

_ERROR = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
_PANICS = {
    0x01: "assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "value outside its enum",
    0x32: "index out of bounds",
    0x41: "out of memory",
    0x51: "call of an unset function",
}


def decode_revert(data: bytes) -> str:
    """The reason in revert data; always some text."""
    if not data:
        return "reverted without a reason"
    try:
        if data[:4] == _ERROR:
            (text,) = decode(("string",), data[4:])
            return _printable(text)
        if data[:4] == _PANIC:
            (code,) = decode(("uint256",), data[4:])
            return _PANICS.get(code, f"panic 0x{code:02x}")
    except (DecodingError, UnicodeDecodeError):
        pass
    return f"custom error 0x{data[:64].hex()}"


def _printable(text: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text[:REASON_CHARS_MAX])
    return shown or "reverted without a reason"
