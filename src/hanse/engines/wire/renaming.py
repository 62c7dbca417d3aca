"""Our id and model name in place of an engine's, in the bytes of its frames.

Only these bytes change, and the rest of a frame is passed on as it came. Cutting is safe: inside a
JSON string a quote is always escaped, so a name with its quotes is never text.
"""

import msgspec

from hanse.engines.wire.envelope import Envelope

HEADS_MAX = 8
"""Beginnings of frames that are learnt in one stream. Most servers have one for all, and llama.cpp,
which puts the names behind the text, a new one each time.
"""


class Renamer:
    """Puts our id and model name into the engine's bytes."""

    def __init__(self, answer_id: str, model: str) -> None:
        self._wanted = {"id": answer_id, "model": model}
        self._old: dict[str, tuple[str, bytes, bytes]] = {}
        self._names: tuple[str | None, str | None] = (None, None)
        self._head = self._new_head = b""
        self._heads = 0

    def rename(self, payload: bytes, envelope: Envelope) -> bytes:
        """The payload under our names; a field that the engine leaves out stays out."""
        names = (envelope.id, envelope.model)
        if self._head and payload.startswith(self._head) and names == self._names:
            return self._new_head + payload[len(self._head) :]
        renamed = self._replace(payload, "id", envelope.id)
        renamed = self._replace(renamed, "model", envelope.model)
        if self._heads < HEADS_MAX:
            self._heads += 1
            self._learn_head(payload, names)
        return renamed

    def _learn_head(self, payload: bytes, names: tuple[str | None, str | None]) -> None:
        """Remember a payload up to the end of its names, and what becomes of that.

        Whatever begins so, and has the same names, has the first place of each in there.
        """
        self._head = b""
        changes = []
        for key, found in zip(self._wanted, names, strict=True):
            if found is not None and found != self._wanted[key]:
                known = self._old.get(key)
                if known is None or known[0] != found or known[1] not in payload:
                    return  # it was replaced slowly
                changes.append(known)
        end = 0
        for _, old, _ in changes:
            end = max(end, payload.index(old) + len(old))
        self._head = self._new_head = payload[:end]
        self._names = names
        for _, old, new in changes:
            self._new_head = self._new_head.replace(old, new, 1)

    def _replace(self, payload: bytes, key: str, found: str | None) -> bytes:
        if found is None or found == self._wanted[key]:
            return payload
        known = self._old.get(key)
        if known is None or known[0] != found or known[1] not in payload:
            known = self._learn(payload, key, found)
        if known is None:
            return self._replace_slowly(payload, key)
        # The top level comes first in every server's frames, and nothing else has this very value.
        return payload.replace(known[1], known[2], 1)

    def _learn(self, payload: bytes, key: str, found: str) -> tuple[str, bytes, bytes] | None:
        value, wanted = msgspec.json.encode(found), msgspec.json.encode(self._wanted[key])
        for gap in (b"", b" "):
            start = b'"' + key.encode() + b'":' + gap
            if payload.count(start + value) == 1:
                self._old[key] = (found, start + value, start + wanted)
                return self._old[key]
        return None

    def _replace_slowly(self, payload: bytes, key: str) -> bytes:
        decoded = msgspec.json.decode(payload)
        decoded[key] = self._wanted[key]
        return msgspec.json.encode(decoded)
