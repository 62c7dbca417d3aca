"""The pointers through which a loaded library calls functions, found and set.

The dynamic linker fills in such a pointer for each function that a library calls across objects.
They are found as debuggers and profilers find them: by the library's own list of relocations, which
glibc shows through `dlinfo`. A pointer is set only where the library's memory is writable as it was
loaded: no protection is lifted, no code changed, no file touched.

    calls = LinkedCalls(xllamacpp.xllamacpp.__file__)
    (place,) = calls.find(b"expf")
    outcome = redirect(place, address)      # BOUND, or why not

Used by `expf_binding` and `canary_binding`, in the engine's own child process.

Source: System V ABI, AMD64 supplement (relocations, dynamic section); glibc manual, "Dynamic Linker
Introspection"; dlinfo(3).
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

BOUND = "bound"
"""The library now calls what was meant."""

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


class LinkedCalls:
    """What one loaded library calls."""

    def __init__(self, library: str) -> None:
        """Look it up; it is loaded already.

        Args:
            library: its file.

        Raises:
            OSError: it is not loaded, or this is no Linux on x86-64 with glibc.
        """
        if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2**63 - 1:
            raise OSError("not Linux on x86-64")
        self.loaded = ctypes.CDLL(library, mode=os.RTLD_NOLOAD)
        try:
            ask = ctypes.CDLL(None).dlinfo
        except AttributeError:
            raise OSError("not as glibc has it: no dlinfo") from None
        shown = ctypes.POINTER(_LinkMap)()
        ask.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        if ask(self.loaded._handle, _RTLD_DI_LINKMAP, ctypes.byref(shown)) != 0:
            raise OSError("dlinfo failed")
        self._base = shown.contents.base
        self._entries = dict(_read_dynamic(shown.contents.dynamic))

    def find(self, name: bytes) -> list[int]:
        """Where the pointers lie through which it calls what has this name, in any version.

        Raises:
            OSError: its tables are not as expected.
        """
        wanted = (_DT_JMPREL, _DT_PLTRELSZ, _DT_SYMTAB, _DT_STRTAB)
        if not self._entries.keys() >= set(wanted):
            return []  # everything is bound otherwise, or nothing is called
        relocations, size, symbols, strings = (self._entries[tag] for tag in wanted)
        if min(relocations, symbols, strings) < self._base:  # glibc has made these absolute
            raise OSError("tables lie before the library")
        found = []
        for offset, info, _ in struct.iter_unpack("<QQq", ctypes.string_at(relocations, size)):
            if info & 0xFFFFFFFF == _R_X86_64_JUMP_SLOT:
                place = ctypes.c_uint32.from_address(symbols + _SYMBOL_BYTES * (info >> 32)).value
                if ctypes.string_at(strings + place) == name:
                    found.append(self._base + offset)
        return found


def get_pointer(place: int) -> int:
    """The address that is called."""
    return ctypes.c_size_t.from_address(place).value


def redirect(place: int, address: int) -> str:
    """Call this address from now on; `BOUND`, or why it was left as it is."""
    if not _is_writable(place):
        return "its place is protected"
    ctypes.c_size_t.from_address(place).value = address
    return BOUND if get_pointer(place) == address else "it did not stay"


def _is_writable(place: int) -> bool:
    """Whether this process may write there as it is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= place and place + 8 <= end:
            return rights.startswith("rw")
    return False


def _read_dynamic(address: int) -> Iterator[tuple[int, int]]:
    while tag := ctypes.c_size_t.from_address(address).value:
        yield tag, ctypes.c_size_t.from_address(address + 8).value
        address += 16
