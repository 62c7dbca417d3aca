"""Reads a token's canaries straight from its logits, inside llama.cpp's own server.

The server tells a token's most likely alternatives by copying, partly sorting and exponentiating
the logits of the whole vocabulary, on its one thread: 0.3 ms a token at a vocabulary of 49,152 and
0.75 ms at 131,072, of which a proof wants sixteen numbers whose places are known. All of it is one
C++ function, `get_token_probabilities`, which the library calls through one pointer. That pointer
is set to the function below. For a request with the `n_probs` that only a proof asks for, it
answers with the canaries and nothing else, as shares of the largest; what all canaries have in
common says nothing, so the fingerprints are the same. Other requests are the library's own's.

It is set only in the versions of the library that this was checked with (`CHECKED`, by
tests/engines/test_canary_binding.py), because what the function returns, a `std::vector` of
{token, logit, probability}, can be tested but not recognised; and only if everything else is as
expected: one such pointer, holding that function's address, in memory that is writable as loaded.
Otherwise the server stays as it is, with the same proofs.

    outcome = bind_canaries(xllamacpp.xllamacpp.__file__, rows)      # BOUND, or why not

Used by `hanse.engines.llama.server`; `Settings.direct_canaries` switches it off. Figures:
docs/measurements.md, "Proof-carrying engines"; why: docs/decisions/0031-proof-carrying-engines.md.

Source: Itanium C++ ABI, "Return Values"; llama.cpp's llama.h; Python/C API, "Non-Python created
threads".
"""

import ctypes
import struct
from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from math import exp, isfinite
from threading import get_ident
from typing import Any

import msgspec

from hanse.engines.llama.linked_calls import LinkedCalls, get_pointer, redirect

CHECKED = frozenset({"2026.10.11549"})
"""Versions of xllamacpp. Another one: run the tests with it added, and read what its
`get_token_probabilities` takes and returns."""

_NAME = b"_Z23get_token_probabilitiesP13llama_contextim"
_FLOAT_BYTES = 4

_Read = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
)
"""(where the vector goes, context, place in the batch, how many are wanted) -> the first again."""

_kept: list[Any] = []
"""What the library calls must stay."""


class CanaryRows(msgspec.Struct, frozen=True):
    """Where a copy's canaries are.

    Attributes:
        first: the first one's token.
        count: of them.
        asked: the `n_probs` of a request that wants these and nothing else.
    """

    first: int
    count: int
    asked: int


def bind_canaries(library: str, rows: CanaryRows, checked: Collection[str] = CHECKED) -> str:
    """Let a loaded library take a proof's numbers from `rows`; before it has threads.

    Args:
        library: its file, which is loaded already.
        rows: of the model that it will serve.
        checked: versions of the wheel that it is done with.

    Returns:
        `linked_calls.BOUND`, or why it was left as it is.
    """
    try:
        found = version("xllamacpp")
    except PackageNotFoundError:
        return "not the wheel that this was checked with"
    if found not in checked:
        return f"not checked with xllamacpp {found}"
    try:
        calls = LinkedCalls(library)
        places = calls.find(_NAME)
        own = ctypes.cast(calls.loaded[_NAME.decode()], ctypes.c_void_p).value or 0
        read = _make_reader(_Logits(library), rows, _Read(own))
    except (OSError, AttributeError) as error:
        return f"not as expected: {error}"
    if len(places) != 1:
        return f"called at {len(places)} places instead of one"
    if get_pointer(places[0]) != own:
        return "another function is called by now"
    callback = _Read(_stay(read))
    _kept.append(callback)
    return redirect(places[0], ctypes.cast(callback, ctypes.c_void_p).value or own)


class _Logits:
    """The library's own functions that are asked, all of its public interface.

    They take a microsecond, so that Python's lock is kept meanwhile.
    """

    def __init__(self, library: str) -> None:
        own, pointer = ctypes.PyDLL(library), ctypes.c_void_p
        self.get = _type(own.llama_get_logits_ith, pointer, pointer, ctypes.c_int)
        self._get_model = _type(own.llama_get_model, pointer, pointer)
        self._get_vocabulary = _type(own.llama_model_get_vocab, pointer, pointer)
        self._count = _type(own.llama_vocab_n_tokens, ctypes.c_int, pointer)
        self.allocate = _type(ctypes.PyDLL(None).malloc, pointer, ctypes.c_size_t)
        self._counted: dict[int, int] = {}

    def count(self, context: int) -> int:
        """Logits of one place; a context is of one model, and a server has one."""
        tokens = self._counted.get(context)
        if tokens is None:
            tokens = self._count(self._get_vocabulary(self._get_model(context)))
            self._counted[context] = tokens
        return tokens


def _make_reader(
    logits: _Logits, rows: CanaryRows, own: Callable[..., int]
) -> Callable[[int, int, int, int], int]:
    unpack, ids = struct.Struct(f"{rows.count}f").unpack, range(rows.first, rows.first + rows.count)
    entries = struct.Struct("=" + "iff" * rows.count)
    vector = struct.Struct("3Q")  # begin, end, end of what was allocated
    skipped, taken = rows.first * _FLOAT_BYTES, rows.count * _FLOAT_BYTES

    # once for each token served, and with what the model left in the caches: so few steps
    def find(context: int, place: int) -> int:
        """The vector's memory with the canaries; 0 where the library's own function has to do."""
        row = logits.get(context, place) if logits.count(context) >= ids.stop else 0
        if not row:
            return 0
        values = unpack(ctypes.string_at(row + skipped, taken))
        most = max(values)
        shares = [exp(value - most) for value in values]
        if not isfinite(sum(shares)):
            return 0
        begin: int = logits.allocate(entries.size) or 0  # the vector's end is free(3)
        if begin:
            told = entries.pack(*chain.from_iterable(zip(ids, values, shares, strict=True)))
            ctypes.memmove(begin, told, entries.size)
        return begin

    def read(out: int, context: int, place: int, wanted: int) -> int:
        try:
            begin = find(context, place) if wanted == rows.asked else 0
        except Exception:  # in C++ nobody catches it, and would take what lies there for a vector
            begin = 0
        if not begin:
            return own(out, context, place, wanted)
        end = begin + entries.size
        ctypes.memmove(out, vector.pack(begin, end, end), vector.size)
        return out

    return read


def _stay(read: Callable[[int, int, int, int], int]) -> Callable[[int, int, int, int], int]:
    """Keep what Python has of a thread that is not its own; made anew each time it takes 30 us.

    It is entered once more than it is left, for as long as the process lives.
    """
    known: set[int] = set()
    enter = ctypes.pythonapi.PyGILState_Ensure

    def read_here(out: int, context: int, place: int, wanted: int) -> int:
        if (thread := get_ident()) not in known:
            known.add(thread)
            enter()
        return read(out, context, place, wanted)

    return read_here


def _type(function: Any, returned: Any, *taken: Any) -> Any:
    function.restype, function.argtypes = returned, taken
    return function
