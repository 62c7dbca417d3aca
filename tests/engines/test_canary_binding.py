"""A copy's canaries read straight from the logits: the same proofs, and where it is left alone."""

import ctypes
import math
import re
import struct
from importlib.metadata import version
from pathlib import Path

import pytest

from hanse.engines.llama import canary_binding
from hanse.engines.llama.canary_binding import CHECKED, CanaryRows, bind_canaries
from hanse.engines.llama.linked_calls import BOUND
from hanse.engines.proving.copy_in_service import TOPS
from hanse.protocol.commitments.fingerprints import ABSENT, get_steps
from hanse.protocol.commitments.tree import Entry
from tests.engines.conftest import open_llama
from tests.engines.real_wheel import on_glibc, run_beside_wheel
from tests.engines.test_contract import collect, make_chat, make_completion
from tests.engines.tiny_copy import make_copy

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "a",
        "schema": {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]},
    },
}
REQUESTS = [
    make_chat(max_tokens=24, seed=1),
    make_chat(max_tokens=24, temperature=0),
    make_chat(max_tokens=24, temperature=0.7, top_p=0.8, seed=3),
    make_chat(max_tokens=24, logprobs=True, top_logprobs=20, seed=4),
    make_chat(max_tokens=40, response_format=SCHEMA, seed=2),
    make_completion(max_tokens=24, seed=4),
    make_completion(max_tokens=24, logprobs=5, seed=4),
]

_PROGRAM = """
import json, sys
from hanse.engines.llama.canary_binding import CanaryRows, bind_canaries
rows = CanaryRows(first=256, count=16, asked=20)
before = bind_canaries(sys.argv[1], rows)
import xllamacpp
print(json.dumps([before, *(bind_canaries(xllamacpp.xllamacpp.__file__, rows) for _ in "12")]))
"""


def test_the_installed_version_was_checked() -> None:
    assert version("xllamacpp") in CHECKED, "read what the new one's function takes and returns"


@on_glibc
def test_the_wheels_one_pointer_is_set_once() -> None:
    before, first, again = run_beside_wheel(_PROGRAM)
    assert before.startswith("not as expected"), "it loads nothing itself"
    assert first == BOUND
    assert again == "another function is called by now"


def test_another_library_or_version_is_left_alone() -> None:
    import msgspec._core

    rows = CanaryRows(256, 16, TOPS)
    assert bind_canaries(msgspec._core.__file__, rows) != BOUND
    assert bind_canaries("/nowhere/at/all.so", rows) != BOUND
    assert "not checked with xllamacpp" in bind_canaries("/nowhere/at/all.so", rows, {"0.1"})


async def answer(path: Path, *, directly: bool) -> tuple[str, list[tuple[bytes, list[Entry]]]]:
    engine = open_llama(model_path=str(path), context_tokens=256, direct_canaries=directly)
    await engine.start()
    try:
        seen = []
        for request in REQUESTS:
            chunks = await collect(engine, request)
            text = re.sub(rb'"created":\d+', b"", b"".join(chunk.data for chunk in chunks))
            seen.append((text, [entry for chunk in chunks for entry in chunk.proof]))
        return engine.canaries, seen
    finally:
        await engine.close()


@on_glibc
@pytest.mark.asyncio(loop_scope="session")
async def test_answers_and_proofs_are_the_same_read_either_way(tmp_path: Path) -> None:
    copy, plain = make_copy(tmp_path / "copy.gguf"), make_copy(tmp_path / "plain.gguf", canaries=0)
    outcome, directly = await answer(copy, directly=True)
    assert outcome == BOUND
    not_wanted, by_the_server = await answer(copy, directly=False)
    assert not_wanted == "not wanted"
    told = 0
    for (text, proof), (other_text, other_proof) in zip(directly, by_the_server, strict=True):
        assert text == other_text
        assert [entry.token for entry in proof] == [entry.token for entry in other_proof]
        for entry, other in zip(proof, other_proof, strict=True):
            assert (entry.fingerprint == ABSENT) == (other.fingerprint == ABSENT)
            if entry.fingerprint != ABSENT:  # a step apart where it lies between two
                pairs = zip(*map(get_steps, (entry.fingerprint, other.fingerprint)), strict=True)
                assert max(abs(a - b) for a, b in pairs) <= 1
                told += 1
    assert told > 100
    none, unproven = await answer(plain, directly=True)
    assert none == "not wanted"
    assert not any(proof for _, proof in unproven)


class Logits:
    """In place of the library's: one row, in memory of our own."""

    def __init__(self, values: list[float]) -> None:
        self._row = (ctypes.c_float * len(values))(*values)
        self.allocate = canary_binding._type(
            ctypes.PyDLL(None).malloc, ctypes.c_void_p, ctypes.c_size_t
        )

    def count(self, context: int) -> int:
        return len(self._row)

    def get(self, context: int, place: int) -> int:
        return ctypes.addressof(self._row) if place >= 0 else 0


def read_entries(
    values: list[float],
    rows: CanaryRows,
    place: int = 0,
    wanted: int = TOPS,
    logits: Logits | None = None,
) -> list[tuple[int, float, float]] | None:
    """What the reader writes; None where it leaves it to the library's own function."""
    vector = (ctypes.c_uint64 * 3)()
    asked = (ctypes.addressof(vector), 7, place, wanted)
    own = []
    read = canary_binding._make_reader(
        logits or Logits(values), rows, lambda *given: own.append(given) or given[0]
    )
    assert read(*asked) == asked[0], "the vector's place comes back"
    if own:
        assert own == [asked]
        return None
    begin, end, capacity = vector
    assert end == capacity
    raw = ctypes.string_at(begin, end - begin)
    canary_binding._type(ctypes.PyDLL(None).free, None, ctypes.c_void_p)(begin)
    return [*struct.iter_unpack("=iff", raw)]


def test_what_is_told_are_the_canaries_as_shares_of_the_largest() -> None:
    entries = read_entries([9.0, 1.0, 2.0, 3.0, 0.5], CanaryRows(1, 3, TOPS))
    assert entries is not None
    assert [(token, logit) for token, logit, _ in entries] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    shares = [share for _, _, share in entries]
    assert [math.log(share) for share in shares] == pytest.approx([-2, -1, 0])


@pytest.mark.parametrize(
    ("values", "rows", "place", "wanted"),
    [
        pytest.param([0.0] * 4, CanaryRows(1, 3, TOPS), 0, TOPS + 1, id="a caller's own"),
        pytest.param([0.0] * 3, CanaryRows(1, 3, TOPS), 0, TOPS, id="more than the model has"),
        pytest.param([0.0] * 4, CanaryRows(1, 3, TOPS), -1, TOPS, id="no logits there"),
        pytest.param([-math.inf] * 4, CanaryRows(1, 3, TOPS), 0, TOPS, id="no numbers"),
    ],
)
def test_everything_else_is_left_to_the_library(
    values: list[float], rows: CanaryRows, place: int, wanted: int
) -> None:
    assert read_entries(values, rows, place, wanted) is None


def test_an_error_of_ours_is_left_to_the_library_too() -> None:
    class Failing(Logits):
        def get(self, context: int, place: int) -> int:
            raise MemoryError

    rows = CanaryRows(1, 3, TOPS)
    assert read_entries([0.0] * 4, rows, logits=Failing([0.0] * 4)) is None
