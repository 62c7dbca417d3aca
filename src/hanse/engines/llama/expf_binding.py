"""Binds llama.cpp's `expf` to the platform's current one, in the server's own process.

Where a copy's canaries are read, llama.cpp's server takes `expf` of the whole vocabulary for each
token, on its one thread: most of what a proof costs. Its wheel is built for old systems and asks
for `expf@GLIBC_2.2.5`, which glibc keeps for them: the same function inside a wrapper that looks
for errors as SVID wanted them told. glibc's own since 2018, `expf@GLIBC_2.27`, has no wrapper. Both
return the same bits for all 2^32 arguments and differ in how they report errors, which llama.cpp
does not look at.

The library calls through one pointer that the dynamic linker has filled in when it was loaded
(`linked_calls`). It is changed only if everything is as expected: glibc on x86-64, both versions
there and of one mind, one such pointer, holding the old version's address, in memory that is
writable anyway. What cannot be verified is left as it is, and the server then is only slower.

    outcome = bind_current_expf(xllamacpp.xllamacpp.__file__)      # BOUND, or why not

Used by `hanse.engines.llama.server`; `Settings.current_expf` switches it off. Figures:
docs/measurements.md, "Proof-carrying engines"; why: docs/decisions/0031-proof-carrying-engines.md.

Source: dlvsym(3); glibc's release notes, 2.27.
"""

import ctypes
import struct

from hanse.engines.llama.linked_calls import LinkedCalls, get_pointer, redirect

_NAME = b"expf"
_OLD, _NEW = b"GLIBC_2.2.5", b"GLIBC_2.27"

_ENDS = (-0.0, 1e-45, 1.0, 88.7, 88.8, -87.3, -87.4, -103.9, -104.0, float("inf"), float("-inf"))
_PROBES = (*_ENDS, *(-0.37 * step for step in range(300)))
"""Both versions have to agree on these: the ends of the range, and what a softmax asks for."""


def bind_current_expf(library: str) -> str:
    """Let a loaded library call the current `expf`; before it has threads.

    Args:
        library: its file, which is loaded already.

    Returns:
        `linked_calls.BOUND`, or why it was left as it is.
    """
    try:
        calls, loader = LinkedCalls(library), ctypes.CDLL(None)
        maths = ctypes.CDLL("libm.so.6")
        old, new = (_find_version(loader, maths, version) for version in (_OLD, _NEW))
        places = calls.find(_NAME)
    except (OSError, AttributeError) as error:
        return f"not as glibc has it: {error}"
    if not old or not new:
        return "libm has not both versions"
    if not _agree(old, new):
        return "the two versions disagree"
    places = [place for place in places if get_pointer(place) == old]
    if len(places) != 1:
        return f"the old version is asked for at {len(places)} places instead of one"
    return redirect(places[0], new)


def _find_version(loader: ctypes.CDLL, maths: ctypes.CDLL, version: bytes) -> int | None:
    find = loader.dlvsym
    find.restype, find.argtypes = ctypes.c_void_p, (ctypes.c_void_p, *[ctypes.c_char_p] * 2)
    address: int | None = find(maths._handle, _NAME, version)
    return address


def _agree(old: int, new: int) -> bool:
    first, second = (ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)(each) for each in (old, new))
    return all(struct.pack("f", first(x)) == struct.pack("f", second(x)) for x in _PROBES)
