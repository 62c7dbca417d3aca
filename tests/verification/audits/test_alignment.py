"""Alignment: harmless differences of engines, and those that stop an audit."""

from collections.abc import Sequence

import pytest

from hanse.protocol.commitments.fingerprints import ABSENT
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.messages import Usage
from hanse.verification.audits.alignment import align
from tests.verification.audits.bought_answers import PATH, make_body, make_response
from tests.verification.audits.toy_model import VOCABULARY, ToyReader

BODY = make_body("hello")
ENTRIES = [Entry(token, bytes(16)) for token in (3, 1, 4, 1, 5)]  # spells 31415
USAGE = Usage(5, 0, 5)


def get_reasons(text: str, body: bytes = BODY, entries: list[Entry] = ENTRIES) -> tuple[str, ...]:
    return align(ToyReader(), PATH, body, make_response(text), entries, USAGE).reasons


@pytest.mark.parametrize("text", ["31415", " 31415", "3141", "31415\N{REPLACEMENT CHARACTER}"])
def test_harmless_differences(text: str) -> None:
    assert get_reasons(text) == ()


@pytest.mark.parametrize("text", ["31416", "314159", "x31415"])
def test_another_text_does_not_fit(text: str) -> None:
    assert get_reasons(text) == ("text_differs",)


def test_a_cut_end_is_as_long_as_the_request_s_stop_at_most() -> None:
    long = [Entry(token, bytes(16)) for token in (3,) * 20]
    usage = Usage(5, 0, 20)
    short = make_response("3333")
    assert align(ToyReader(), PATH, BODY, short, long, usage).reasons == ("text_differs",)
    for stop in ("3" * 16, ["x", "3" * 16]):
        body = make_body("hello", stop=stop)
        assert align(ToyReader(), PATH, body, short, long, usage).reasons == ()


def test_tokens_before_an_unknown_one_are_the_beginning() -> None:
    entries = [*ENTRIES[:3], Entry(UNKNOWN_TOKEN, ABSENT), ENTRIES[4]]
    found = align(ToyReader(), PATH, BODY, make_response("314?5"), entries, USAGE)
    assert (found.count, found.reasons) == (3, ())
    assert get_reasons("999", entries=entries) == ("text_differs",)


@pytest.mark.parametrize("token", [VOCABULARY, VOCABULARY + 15, 2**31 - 1, 2**31, 2**32 - 2])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_token_that_the_model_lacks_is_never_looked_up(token: int, at: int) -> None:
    """A canary's number or none at all: committed to so that the auditor's process ends there."""
    entries = [*ENTRIES]
    entries[at] = Entry(token, bytes(16))
    found = align(ToyReader(), PATH, BODY, make_response("31415"), entries, USAGE)
    assert found.count == at
    assert "text_differs" in found.reasons


def test_a_stop_cuts_a_long_token_anywhere() -> None:
    """Of a token of 64 dashes only what stands before a stop of one dash is served."""

    class LongReader(ToyReader):
        def get_text(self, tokens: Sequence[int]) -> bytes:
            return b"".join(b"-" * 64 if token == 9 else b"x" for token in tokens)

    def align_to(served: str) -> tuple[str, ...]:
        entries = [Entry(token, bytes(16)) for token in (1, 1, 9)]
        body = make_body("hello", stop="-")
        return align(
            LongReader(), PATH, body, make_response(served), entries, Usage(5, 0, 3)
        ).reasons

    assert align_to("xx") == ()
    assert align_to("xx---") == ()
    assert align_to("x") == ()
    assert align_to("xy") == ("text_differs",)
