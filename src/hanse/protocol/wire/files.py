"""Documents that a stranger hands over as a file: one way to read and to refuse them all.

    FORM = FileForm("hanse-x-1", _File, 65_536, "evidence_invalid", "this x does not hold")
    file = FORM.decode(raw)                       too long, too deep, no such JSON, another format
    with FORM.reading():                          what goes wrong in here is the file's fault
        FORM.verify_signature(digest, file.signature, file.witness, "the statement")
    raise FORM.refuse("the model is another one")

Every such document is a JSON object whose `format` names it and its version: `hanse-receipt-1`. A
reader bounds its length, asks for its depth before any decoder recurses (`protocol/nesting.py`),
and then looks at what is written in it. All that is wrong with it is a `VerificationError` of one
code, whoever found it. Pure: whoever opens the file reads one byte more than `bytes_max`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import msgspec

from hanse.protocol import signatures
from hanse.protocol.errors import HanseError, VerificationError
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import Address

REASON_CHARS_MAX = 300
"""Of what a decoder says: it may repeat a stranger's text."""


class _Named(Protocol):
    @property
    def format(self) -> str:
        """Name and version of the document's form."""


class _Head(msgspec.Struct):
    format: str


_T = TypeVar("_T", bound=_Named)


class FileForm(Generic[_T]):
    """One kind of document.

    Attributes:
        name: what its `format` says.
        bytes_max: of a file.
        code: of every refusal.
    """

    def __init__(
        self,
        name: str,
        kind: type[_T],
        bytes_max: int,
        code: str,
        refusal: str,
        *,
        is_strict: bool = True,
    ) -> None:
        """Describe it.

        Args:
            name: what its `format` says.
            kind: struct of its fields; unknown ones are the struct's to forbid.
            bytes_max: of a file.
            code: of every refusal.
            refusal: its words, which a colon and the reason follow.
            is_strict: else numbers that are written as text are taken too.
        """
        self.name, self.bytes_max, self.code = name, bytes_max, code
        self._refusal = refusal
        self._decoder: msgspec.json.Decoder[_T] = msgspec.json.Decoder(kind, strict=is_strict)

    def refuse(self, reason: str) -> VerificationError:
        """The error for a document of this kind that does not hold."""
        return VerificationError(self.code, f"{self._refusal}: {reason}")

    def is_meant(self, raw: bytes) -> bool:
        """Whether a file says that it is of this kind; it may be invalid all the same."""
        if len(raw) > self.bytes_max or self.name.encode() not in raw or is_nested_too_deep(raw):
            return False
        try:
            return msgspec.json.decode(raw, type=_Head).format == self.name
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def decode(self, raw: bytes) -> _T:
        """The document, of this format and within its bounds; its values are not checked.

        Raises:
            VerificationError: it is none.
        """
        if len(raw) > self.bytes_max:
            raise self.refuse(f"it has more than {self.bytes_max} bytes")
        if is_nested_too_deep(raw):
            raise self.refuse("it is nested too deep")
        with self.reading():
            file = self._decoder.decode(raw)
        if file.format != self.name:
            raise self.refuse(f"the format is {file.format!r:.40}, not {self.name}")
        return file

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What cannot be read, or is out of range, within is refused as the document's fault.

        A `VerificationError` says by itself what does not fit, and passes.
        """
        try:
            yield
        except VerificationError:
            raise
        except HanseError as error:
            raise self.refuse(error.message) from None
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise self.refuse(str(error)[:REASON_CHARS_MAX]) from None

    def verify_signature(
        self, digest: bytes, signature: object, expected: Address, what: str
    ) -> None:
        """Check that `expected` signed what the document says.

        Raises:
            VerificationError: it did not.
        """
        with self.reading():
            signatures.verify_signature(digest, signature, expected, what)
