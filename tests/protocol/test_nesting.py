"""Deep JSON is refused before a decoder recurses: the recursion limit is the process's."""

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.nesting import NESTING_MAX, is_nested_too_deep


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1),
        b'{"a": "[[[", "b": ' + b"[" * (NESTING_MAX + 1),
        b"[]" * 100 + b"[{}," * 10_000,
    ],
)
def test_what_would_end_the_stack_is_refused(data):
    assert is_nested_too_deep(data)


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "user", "content": "x"}] * 5_000},
        {"prompt": "[" * 10_000},
        {"prompt": '\\"[' * 10_000},
        [[]] * 10_000,
    ],
)
def test_flat_bodies_with_many_brackets_pass(value):
    assert not is_nested_too_deep(json.dumps(value).encode())


@given(st.integers(1, 2 * NESTING_MAX), st.booleans())
def test_the_limit_is_exact(depth, is_object):
    opening, closing = (b'{"a":', b"}") if is_object else (b"[", b"]")
    data = opening * depth + b"1" + closing * depth
    assert is_nested_too_deep(data) == (depth > NESTING_MAX)


@given(st.lists(st.booleans(), min_size=NESTING_MAX - 2, max_size=NESTING_MAX + 2))
def test_both_kinds_of_brackets_count(kinds):
    opening = b"".join(b'{"a":' if is_object else b"[" for is_object in kinds)
    closing = b"".join(b"}" if is_object else b"]" for is_object in reversed(kinds))
    assert is_nested_too_deep(opening + b"1" + closing) == (len(kinds) > NESTING_MAX)


@given(st.binary(max_size=2_000))
def test_any_bytes_get_an_answer(data):
    assert is_nested_too_deep(data) in (True, False)


def test_the_attack_is_real():
    """Without the check: another library's recursion limit, and the process is gone."""
    program = (
        "import sys, msgspec; sys.setrecursionlimit(100_000); msgspec.json.decode(b'[' * 200_000)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode < 0  # a signal, not an exception
    assert msgspec.json.decode(b"[" * NESTING_MAX + b"]" * NESTING_MAX)
