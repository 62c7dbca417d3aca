"""A nonce is good once, for two minutes, where it was issued."""

import pytest

from hanse.protocol.errors import TransientError, VerificationError
from hanse.verification.attestation import NonceBook
from hanse.verification.attestation.nonces import NONCES_MAX


class Book(NonceBook):
    """With a clock and chance that the test holds."""

    def __init__(self) -> None:
        self.now, self.made = 1_000.0, 0
        super().__init__(lambda: self.now, self.draw)

    def draw(self, size: int) -> bytes:
        self.made += 1
        return self.made.to_bytes(size, "big")

    def get_code(self, nonce: str) -> str:
        try:
            self.redeem(nonce)
        except VerificationError as error:
            return error.code.removeprefix("attestation_nonce_")
        return ""


def test_once_and_never_again():
    book = Book()
    first, second = book.issue(), book.issue()
    assert first != second
    assert [book.get_code(nonce) for nonce in (first, first, second)] == ["", "used", ""]
    assert book.get_code("0x" + "ff" * 32) == "unknown"


def test_until_its_time_is_over_and_later_forgotten():
    book = Book()
    nonce, late = book.issue(), book.issue()
    book.now += 120
    assert book.get_code(nonce) == ""
    book.now += 0.1
    assert book.get_code(late) == "expired"
    assert book.get_code(nonce) == "expired"
    book.now += 120
    book.issue()
    assert book.get_code(late) == "unknown"
    assert book.get_code(nonce) == "unknown", "forgotten, and still refused"


def test_there_is_an_end_to_asking():
    book = Book()
    for _ in range(NONCES_MAX):
        book.issue()
    with pytest.raises(TransientError):
        book.issue()
    book.now += 241
    book.issue()
