"""The vocabulary of tokenizer.json as GGUF has it, for the kinds that llama.cpp knows.

Byte-level BPE is told apart by how it splits text before merging; GGUF names the way of splitting,
and llama.cpp has the code of each. SentencePiece-like BPE (Llama 2, Mistral) falls back to bytes.
Anything else is refused: a tokenizer that is nearly right is the worst of all.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.models.opening import TOKENIZER_BYTES_MAX, read_document
from hanse.protocol.errors import RequestError, VerificationError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens. Source: llama.h (`enum llama_token_type`)."""

_LETTERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {_LETTERS % r"\p{N}{1,3}": "llama-bpe", _LETTERS % r"\p{N}": "qwen2"}
"""Regular expression of the splitting -> llama.cpp's name of it."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as GGUF stores it; `scores` only for the SentencePiece kind."""

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...]
    adds_space: bool


def read_vocabulary(path: Path, size: int) -> Vocabulary:
    """The vocabulary in a tokenizer.json, filled up to the model's `size`.

    Raises:
        RequestError: `model_unsupported`, a kind that is not known here.
        VerificationError: `model_invalid`, ids that contradict one another.
    """
    raw = read_document(path, TOKENIZER_BYTES_MAX)
    try:
        return _read(raw, size)
    except (AttributeError, TypeError, KeyError) as error:
        # its parts are objects in objects, any of which may be something else in a stranger's file
        raise _invalid(f"a part is of another kind than it should be ({error})") from error


def _read(raw: dict[str, Any], size: int) -> Vocabulary:
    model = raw["model"]
    if model.get("type", "BPE") != "BPE":
        raise _refuse(f"of kind {str(model.get('type'))[:40]}")
    by_id, kinds = _collect(model.get("vocab"), raw.get("added_tokens"), size)
    tokens = tuple(by_id.get(index, f"[PAD{index}]") for index in range(size))
    found = tuple(kinds.get(index, UNUSED) for index in range(size))
    if model.get("byte_fallback"):
        found = tuple(
            BYTE if kind == NORMAL and _is_byte(token) else kind
            for token, kind in zip(tokens, found, strict=True)
        )
        # the merges' order, which Hugging Face has, is the order of the ids in such vocabularies
        scores = tuple(-float(index) for index in range(size))
        return Vocabulary("llama", "default", tokens, found, scores, _adds_space(raw))
    if (raw.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        raise _refuse(f"that normalises text by {raw['normalizer'].get('type')}")
    return Vocabulary("gpt2", _find_pre(raw.get("pre_tokenizer")), tokens, found, (), False)


def _collect(vocab: object, added: object, size: int) -> tuple[dict[int, str], dict[int, int]]:
    """Token and kind by id."""
    if not isinstance(vocab, dict):
        raise _invalid("it has no vocabulary")
    by_id: dict[int, str] = {}
    for token, index in vocab.items():
        if not isinstance(index, int) or not 0 <= index < size or index in by_id:
            raise _invalid(f"token {token[:40]!r} has the number {str(index)[:20]} of {size}")
        by_id[index] = token
    kinds = dict.fromkeys(by_id, NORMAL)
    for entry in added if isinstance(added, list) else ():
        index, token = entry.get("id"), entry.get("content")
        if not isinstance(index, int) or not 0 <= index < size or not isinstance(token, str):
            raise _invalid(f"an added token has the number {str(index)[:20]} of {size}")
        by_id[index] = token
        kinds[index] = CONTROL if entry.get("special") else USER_DEFINED
        if token == "<unk>":  # noqa: S105 - a token of the model's, no secret
            kinds[index] = UNKNOWN
    return by_id, kinds


def _find_pre(raw: object) -> str:
    """llama.cpp's name of how text is split before merging."""
    steps = raw.get("pretokenizers", [raw]) if isinstance(raw, dict) else []
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0].get("pattern", {}).get("Regex", "")
        if pattern in SPLITS:
            return SPLITS[pattern]
    raise _refuse(f"that splits text by {json.dumps(raw)[:200]}")


def _adds_space(raw: dict[str, Any]) -> bool:
    """Whether a space is put before the text."""
    normalizer, splitting = raw.get("normalizer") or {}, raw.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    prepends = any(step.get("type") == "Prepend" for step in steps)
    return prepends or splitting.get("prepend_scheme") in ("first", "always")


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _refuse(what: str) -> RequestError:
    return RequestError("model_unsupported", f"No conversion to GGUF of a tokenizer {what}.")


def _invalid(what: str) -> VerificationError:
    return VerificationError("model_invalid", f"tokenizer.json contradicts itself: {what}.")
