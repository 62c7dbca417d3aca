"""Results that only a finished check can make.

    @dataclass(frozen=True, kw_only=True)
    class VerifiedQuote(Witness): ...

    VerifiedQuote(seal=SEAL, ...)        in the function that has checked it, nowhere else

A verifier here returns no bool and no half-checked object: what it returns exists only if every
check before it passed, and what takes a `VerifiedQuote` cannot be handed anything less. A witness
cannot be made without the seal, by `dataclasses.replace`, or by unpickling. Python lets a program
that means to lie do so; this is against the caller who forgets. A test holds who uses the seal.
"""

from dataclasses import InitVar, dataclass
from typing import NoReturn

from hanse.protocol.errors import InvariantError

SEAL = object()
"""Taken by the verifying functions of this folder alone."""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Base of what was verified."""

    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        """Refuse to exist without the seal."""
        if seal is not SEAL:
            name = type(self).__name__
            raise InvariantError("internal_error", f"{name} is made by its verifier alone")

    def __reduce__(self) -> NoReturn:
        """A witness is of this process and this moment; its facts may be stored, not it."""
        raise InvariantError("internal_error", f"{type(self).__name__} cannot be stored")
