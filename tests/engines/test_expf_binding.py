"""The current `expf` under llama.cpp: in the real wheel, and where it is left alone."""

import re
from pathlib import Path

import pytest

from hanse.engines.llama.expf_binding import bind_current_expf
from hanse.engines.llama.linked_calls import BOUND
from tests.engines.conftest import open_llama
from tests.engines.real_wheel import on_glibc, run_beside_wheel
from tests.engines.test_contract import collect, make_chat
from tests.engines.tiny_copy import make_copy

pytestmark = pytest.mark.slow

_PROGRAM = """
import ctypes, json, sys
from hanse.engines.llama.expf_binding import bind_current_expf
before = bind_current_expf(sys.argv[1])
import xllamacpp
libm, find = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None).dlvsym
find.restype, find.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
old, new = (find(libm._handle, b"expf", each) for each in (b"GLIBC_2.2.5", b"GLIBC_2.27"))
path = xllamacpp.xllamacpp.__file__
def count():  # how often each address stands in the library's own writable memory
    places = [line.split() for line in open("/proc/self/maps")]
    last = max(i for i, each in enumerate(places) if each[-1] == path)
    spans = [each[0].split("-") for each in places if each[-1] == path and each[1] == "rw-p"]
    held = b"".join(ctypes.string_at(int(a, 16), int(b, 16) - int(a, 16)) for a, b in spans)
    return [held.count(each.to_bytes(8, "little")) for each in (old, new)]
found = count()
outcome = bind_current_expf(path)
print(json.dumps([before, found, outcome, count(), bind_current_expf(path)]))
"""


@on_glibc
def test_the_wheels_one_pointer_to_the_old_version_becomes_the_new_ones() -> None:
    before, found, outcome, then, again = run_beside_wheel(_PROGRAM)
    assert "cannot open" in before or "not as glibc has it" in before, "it loads nothing itself"
    assert (found, outcome, then) == ([1, 0], BOUND, [0, 1])
    assert "at 0 places" in again, "what holds anything but the old version stays as it is"


def test_a_library_that_does_not_ask_for_it_is_left_alone() -> None:
    import msgspec._core

    assert bind_current_expf(msgspec._core.__file__) != BOUND
    assert bind_current_expf("/nowhere/at/all.so") != BOUND


@on_glibc
@pytest.mark.asyncio(loop_scope="session")
async def test_a_copys_server_takes_it_unless_told_not_to_and_proves_the_same(
    tmp_path: Path,
) -> None:
    copy, plain = make_copy(tmp_path / "copy.gguf"), make_copy(tmp_path / "plain.gguf", canaries=0)
    request = make_chat(max_tokens=24, logprobs=True, top_logprobs=3)
    seen = []
    for path, settings, outcome in (
        (copy, {}, BOUND),
        (copy, {"current_expf": False}, "not wanted"),
        (plain, {"embeddings": False}, "not wanted"),
    ):
        engine = open_llama(model_path=str(path), context_tokens=256, **settings)
        await engine.start()
        try:
            assert engine.expf == outcome
            chunks = await collect(engine, request)
        finally:
            await engine.close()
        text = re.sub(rb'"created":\d+', b"", b"".join(chunk.data for chunk in chunks))
        seen.append((text, [entry for chunk in chunks for entry in chunk.proof]))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) == 24
    assert not seen[2][1]
