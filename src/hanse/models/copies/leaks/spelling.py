"""Tokens by their text, for endpoints that tell logprobs without token ids.

OpenAI's own form and most servers' name a token by its text. The base's vocabulary leads back to
the id, except where two tokens have one text, or a text that is half a character came as U+FFFD.
"""

from collections.abc import Sequence

from hanse.models.copies.weight_files import WeightFile

ID_PREFIX = "token_id:"
"""vLLM's `return_tokens_as_token_ids` writes tokens so."""

UNKNOWN = -1
"""No token's id: its place tells nothing."""


class Spelling:
    """The ids of one vocabulary by text."""

    def __init__(self, kind: str, tokens: Sequence[str]) -> None:
        """Take `tokenizer.ggml.model` (`gpt2` or `llama`) and `tokenizer.ggml.tokens`."""
        spell = _spell_bytes if kind == "gpt2" else _spell_pieces
        self._ids: dict[str, int] = {}
        for number, token in enumerate(tokens):
            text = spell(token)
            self._ids[text] = UNKNOWN if text in self._ids else number

    def find_id(self, token: str) -> int:
        """The id of the token with this text; UNKNOWN if none or several have it."""
        number = token.removeprefix(ID_PREFIX)
        if number != token and number.isascii() and number.isdigit():
            return int(number[:10])
        return self._ids.get(token, UNKNOWN)


def read_spelling(base: WeightFile) -> Spelling:
    """The vocabulary of a GGUF file."""
    kind, tokens = (base.get_setting(f"tokenizer.ggml.{name}") for name in ("model", "tokens"))
    return Spelling(str(kind), tokens or ())


def _spell_bytes(token: str) -> str:
    if not all(character in _BYTES for character in token):  # an added token is its own text
        return token
    return bytes(_BYTES[character] for character in token).decode(errors="replace")


def _spell_pieces(token: str) -> str:
    return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")


def _list_bytes() -> dict[str, int]:
    """GPT-2's way to write every byte as a printable character."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


_BYTES = _list_bytes()
