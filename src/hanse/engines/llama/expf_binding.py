"""Binds llama.cpp's `expf` to the platform's current one, in the server's own process.

Where a copy's canaries are read, llama.cpp's server takes `expf` of the whole vocabulary for each
token, on its one thread: most of what a proof costs. Its wheel is built for old systems and asks
for `expf@GLIBC_2.2.5`, which glibc keeps for them: the same function inside a wrapper that looks
for errors as SVID wanted them told. glibc's own since 2018, `expf@GLIBC_2.27`, has no wrapper. Both
return the same bits for all 2^32 arguments and differ in how they report errors, which llama.cpp
does not look at.

The library calls through one pointer that the dynamic linker has filled in when it was loaded. That
pointer is found as debuggers and profilers find it: by the library's own list of relocations, which
glibc shows through `dlinfo`. It is changed only if everything is as expected: glibc on x86-64, both
versions there and of one mind, one such pointer, holding the old version's address, in memory that
is writable anyway. No code is changed, no protection lifted, no file touched; what cannot be
verified is left as it is, and the server then is only slower.

    outcome = bind_current_expf(xllamacpp.xllamacpp.__file__)      # BOUND, or why not

Used by `hanse.engines.llama.server`; `Settings.current_expf` switches it off. Figures:
docs/measurements.md, "Proof-carrying engines"; why: docs/decisions/0031-proof-carrying-engines.md.

Source: System V ABI, AMD64 supplement (relocations, dynamic section); glibc manual, "Dynamic Linker
Introspection"; dlinfo(3), dlvsym(3).
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

BOUND = "bound"
"""The library now calls the current version."""

_NAME = b"expf"
_OLD, _NEW = b"GLIBC_2.2.5", b"GLIBC_2.27"

_ENDS = (-0.0, 1e-45, 1.0, 88.7, 88.8, -87.3, -87.4, -103.9, -104.0, float("inf"), float("-inf"))
_PROBES = (*_ENDS, *(-0.37 * step for step in range(300)))
"""Both versions have to agree on these: the ends of the range, and what a softmax asks for."""

_RTLD_DI_LINKMAP = 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL = 2, 5, 6, 23
_R_X86_64_JUMP_SLOT = 7
_SYMBOL_BYTES = 24


class _LinkMap(ctypes.Structure):
    """What `dlinfo` tells of a loaded library: the public beginning of glibc's own record."""

    _fields_ = (
        ("base", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("dynamic", ctypes.c_size_t),
    )


def bind_current_expf(library: str) -> str:
    """Let a loaded library call the current `expf`; before it has threads.

    Args:
        library: its file, which is loaded already.

    Returns:
        `BOUND`, or why it was left as it is.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2**63 - 1:
        return "not Linux on x86-64"
    try:
        loader, maths = ctypes.CDLL(None), ctypes.CDLL("libm.so.6")
        loaded = ctypes.CDLL(library, mode=os.RTLD_NOLOAD)
        old, new = (_find_version(loader, maths, version) for version in (_OLD, _NEW))
        slots = [*_list_slots(loader, loaded)]
    except (OSError, AttributeError) as error:
        return f"not as glibc has it: {error}"
    if not old or not new:
        return "libm has not both versions"
    if not _agree(old, new):
        return "the two versions disagree"
    slots = [slot for slot in slots if ctypes.c_size_t.from_address(slot).value == old]
    if len(slots) != 1:
        return f"the old version is asked for at {len(slots)} places instead of one"
    if not _is_writable(slots[0]):
        return "its place is protected"
    pointer = ctypes.c_size_t.from_address(slots[0])
    pointer.value = new
    return BOUND if ctypes.c_size_t.from_address(slots[0]).value == new else "it did not stay"


def _find_version(loader: ctypes.CDLL, maths: ctypes.CDLL, version: bytes) -> int | None:
    find = loader.dlvsym
    find.restype, find.argtypes = ctypes.c_void_p, (ctypes.c_void_p, *[ctypes.c_char_p] * 2)
    address: int | None = find(maths._handle, _NAME, version)
    return address


def _agree(old: int, new: int) -> bool:
    first, second = (ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)(each) for each in (old, new))
    return all(struct.pack("f", first(x)) == struct.pack("f", second(x)) for x in _PROBES)


def _list_slots(loader: ctypes.CDLL, loaded: ctypes.CDLL) -> Iterator[int]:
    """Where the pointers lie through which a library calls what has this name, in any version."""
    shown = ctypes.POINTER(_LinkMap)()
    ask = loader.dlinfo
    ask.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    if ask(loaded._handle, _RTLD_DI_LINKMAP, ctypes.byref(shown)) != 0:
        raise OSError("dlinfo failed")
    base = shown.contents.base
    entries = dict(_read_dynamic(shown.contents.dynamic))
    wanted = (_DT_JMPREL, _DT_PLTRELSZ, _DT_SYMTAB, _DT_STRTAB)
    if not entries.keys() >= set(wanted):
        return  # everything is bound otherwise, or nothing is called
    relocations, size, symbols, strings = (entries[tag] for tag in wanted)
    if min(relocations, symbols, strings) < base:  # glibc has made these absolute
        raise OSError("tables lie before the library")
    for offset, info, _ in struct.iter_unpack("<QQq", ctypes.string_at(relocations, size)):
        if info & 0xFFFFFFFF == _R_X86_64_JUMP_SLOT:
            place = ctypes.c_uint32.from_address(symbols + _SYMBOL_BYTES * (info >> 32)).value
            if ctypes.string_at(strings + place) == _NAME:
                yield base + offset


def _read_dynamic(address: int) -> Iterator[tuple[int, int]]:
    while tag := ctypes.c_size_t.from_address(address).value:
        yield tag, ctypes.c_size_t.from_address(address + 8).value
        address += 16


def _is_writable(address: int) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights = line.split()[:2]
        start, end = (int(part, 16) for part in place.split("-"))
        if start <= address and address + 8 <= end:
            return rights.startswith("rw")
    return False
