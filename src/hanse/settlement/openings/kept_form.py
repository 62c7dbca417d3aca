"""How an opening lies in the broker's database: under 16 bytes a token instead of 20.

    kept = encode_kept(entries)
    entries = decode_kept(kept)

Sent, an opening is as `protocol/commitments/tree.py` has it; only what is stored is shorter:

    kept   = form (1 byte) || number of positions (7 bits a byte, lowest first) || steps || tokens
    steps  = of each position 15 signed bytes of its fingerprint, then the balance, which is what
             all 16 add up to, modulo 256, and so gives the 16th; each in a fixed prefix code
    tokens = each id plus one, so that UNKNOWN_TOKEN is 0: in as many bits as the largest takes
             (form 1 .. 32; from the next bit on, zeros to the end of the byte), or deflated
             (form 64 + bytes of an id; from the next byte on), whichever is shorter

The codes are fixed because an answer of 16 tokens cannot carry a table of its own. Steps lie as a
normal distribution around zero whose deviation is 1 / SCALE steps, whatever the model: a canary's
row is a unit vector and the state is normed. Their mean was taken off, so that they add up to what
rounding leaves.

A row from before this form is an opening as it is sent, and begins with another byte than a form.

Source: Huffman, A method for the construction of minimum-redundancy codes (1952); figures, and what
else was tried, in `docs/measurements.md`, "Audits".
"""

import zlib
from collections.abc import Sequence

from hanse.protocol.commitments.fingerprints import CANARIES, FINGERPRINT_BYTES
from hanse.protocol.commitments.tree import POSITIONS_MAX, TOKEN_ID_MAX, Entry
from hanse.protocol.errors import InvariantError

BITS_MAX = 32
"""Of a token id."""

DEFLATED = 64
"""Added to the bytes of an id, in the form of an opening whose tokens are deflated."""

DEFLATED_FROM = 64
"""Tokens from which deflating them is tried: fewer do not repeat themselves enough."""

STEP_LENGTHS = (
    (6, 23), (7, 57), (8, 29), (9, 24), (10, 19), (11, 18), (12, 16), (13, 15), (14, 13), (15, 42),
)  # fmt: skip
"""Bits of a word, and how many steps have one so long, from the likeliest step on. Huffman's for a
normal distribution of deviation 1 / SCALE, in which no step counts as less likely than a
five-hundredth of the likeliest, and for one absent fingerprint in 170."""

BALANCE_LENGTHS = ((2, 3), (4, 2), (6, 2), (10, 2), (11, 129), (12, 118))
"""The same of a balance, whose deviation is that of 16 roundings, 1.15."""

ABSENT_STEP, AS_LIKELY_AS = -128, 39
"""The step of an absent fingerprint comes about as often as this one."""


class PrefixCode:
    """The canonical prefix code of so many bits for so many signed bytes, the likeliest first."""

    def __init__(self, likeliest: Sequence[int], lengths: Sequence[tuple[int, int]]) -> None:
        words, word, before, rest = [""] * 256, 0, 0, iter(likeliest)
        for length, count in lengths:
            word <<= length - before
            before = length
            for _ in range(count):
                words[next(rest) & 0xFF] = f"{word:0{length}b}"
                word += 1
        self.words = tuple(words)
        self.values = {word: byte for byte, word in enumerate(words)}
        self.shortest, self.longest = lengths[0][0], lengths[-1][0]


_NEAR_ZERO = sorted(range(-127, 128), key=abs)
_BEFORE_ABSENT = 2 * AS_LIKELY_AS + 1
STEPS = PrefixCode(
    [*_NEAR_ZERO[:_BEFORE_ABSENT], ABSENT_STEP, *_NEAR_ZERO[_BEFORE_ABSENT:]], STEP_LENGTHS
)
BALANCES = PrefixCode([*_NEAR_ZERO, ABSENT_STEP], BALANCE_LENGTHS)


def encode_kept(entries: Sequence[Entry]) -> bytes:
    """An opening as it is stored.

    Raises:
        ValueError: more positions than POSITIONS_MAX, or an entry that does not fit.
    """
    count, tokens = len(entries), [entry.token for entry in entries]
    if count > POSITIONS_MAX:
        raise ValueError(f"{count} positions, at most {POSITIONS_MAX} are committed")
    if not all(0 <= token <= TOKEN_ID_MAX for token in tokens):
        raise ValueError(f"a token id is outside 0 .. {TOKEN_ID_MAX}")
    if not all(len(entry.fingerprint) == FINGERPRINT_BYTES for entry in entries):
        raise ValueError(f"a fingerprint has not {FINGERPRINT_BYTES} bytes")
    head, steps = _encode_count(count), _encode_steps(entries)
    ids = [(token + 1) & TOKEN_ID_MAX for token in tokens]
    bits = max(1, max(ids, default=0).bit_length())
    if count >= DEFLATED_FROM:
        size = (bits + 7) // 8
        deflated = zlib.compress(b"".join(one.to_bytes(size, "big") for one in ids), 9, -15)
        if 8 * len(deflated) < bits * count:
            return bytes([DEFLATED + size]) + head + _to_bytes(steps) + deflated
    packed = "".join([f"{one:0{bits}b}" for one in ids])
    return bytes([bits]) + head + _to_bytes(steps + packed)


def decode_kept(kept: bytes) -> tuple[Entry, ...]:
    """What `encode_kept` was given.

    Raises:
        InvariantError: `invariant_broken`; it is none, so the database was damaged.
    """
    form, count, at = _decode_head(kept)
    bits = f"{int.from_bytes(kept[at:], 'big'):0{8 * (len(kept) - at)}b}" if at < len(kept) else ""
    prints, end = _decode_steps(bits, count)
    if form > DEFLATED:
        ids = _inflate(kept[at + (end + 7) // 8 :], count, form - DEFLATED)
    else:
        last = end + count * form
        if not last <= len(bits) < last + 8:
            raise _damaged(f"{count} positions take {last} bits, {len(bits)} are kept")
        ids = [int(bits[place : place + form], 2) for place in range(end, last, form)]
    return tuple(
        Entry((one - 1) & TOKEN_ID_MAX, fingerprint)
        for one, fingerprint in zip(ids, prints, strict=True)
    )


def _encode_steps(entries: Sequence[Entry]) -> str:
    prints = b"".join([entry.fingerprint for entry in entries])
    columns = [prints[canary::CANARIES] for canary in range(CANARIES)]
    words, balances = STEPS.words, BALANCES.words
    rows = zip(*columns, strict=True)
    return "".join(
        ["".join([words[step] for step in row[:-1]]) + balances[sum(row) & 0xFF] for row in rows]
    )


def _decode_steps(bits: str, count: int) -> tuple[list[bytes], int]:
    prints, at = [], 0
    for _ in range(count):
        row = bytearray()
        for code in (*(STEPS,) * (CANARIES - 1), BALANCES):
            end = at + code.shortest
            while (value := code.values.get(bits[at:end])) is None:
                end += 1
                if end > len(bits) or end - at > code.longest:
                    raise _damaged(f"bits {at} .. {end} of {len(bits)} are no word of its code")
            row.append(value)
            at = end
        row[-1] = (row[-1] - sum(row[:-1])) & 0xFF
        prints.append(bytes(row))
    return prints, at


def _inflate(deflated: bytes, count: int, size: int) -> list[int]:
    """Ids of `size` bytes each; no more is inflated than they take."""
    inflating = zlib.decompressobj(-15)
    try:
        raw = inflating.decompress(deflated, count * size + 1)
    except zlib.error as error:
        raise _damaged(f"its tokens: {error}") from None
    if len(raw) != count * size or not inflating.eof or inflating.unused_data:
        raise _damaged(f"its tokens take {len(raw)} bytes, expected {count * size}")
    return [int.from_bytes(raw[at : at + size], "big") for at in range(0, len(raw), size)]


def _encode_count(count: int) -> bytes:
    parts = bytearray()
    while count > 0x7F:
        parts.append(count & 0x7F | 0x80)
        count >>= 7
    return bytes([*parts, count])


def _decode_head(kept: bytes) -> tuple[int, int, int]:
    """Form, number of positions, and where the steps begin."""
    form, count, at = kept[0] if kept else 0, 0, 1
    if not (0 < form <= BITS_MAX or DEFLATED < form <= DEFLATED + BITS_MAX // 8):
        raise _damaged(f"form {form} is none that this program knows")
    while at < len(kept):
        count |= (kept[at] & 0x7F) << 7 * (at - 1)
        at += 1
        if count > POSITIONS_MAX:
            raise _damaged(f"{count} positions, at most {POSITIONS_MAX} are committed")
        if kept[at - 1] <= 0x7F:
            return form, count, at
    raise _damaged("it ends within its head")


def _to_bytes(bits: str) -> bytes:
    """Bits with zeros to the end of the last byte."""
    size = (len(bits) + 7) // 8
    return (int(bits or "0", 2) << 8 * size - len(bits)).to_bytes(size, "big")


def _damaged(why: str) -> InvariantError:
    return InvariantError("invariant_broken", f"a kept opening cannot be read: {why}")
