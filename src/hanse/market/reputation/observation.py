"""A signed observation of a failure or of a time: what a witness has seen and cannot show.

    Observation(address provider,address witness,uint256 word,uint256 firstTokenMs,
                bytes32 requestId,uint256 seenAt)

EIP-712, in the market's domain, signed by the witness. Nobody can run it again, so that it counts
little (`hanse.market.reputation.computing.OBSERVED_MAX`), and only by the witness's stake. The
digest is the hash under which it counts, once.
"""

import msgspec

from hanse.market.reputation.testimony import Testimony, Word
from hanse.protocol.eip712 import Domain, address_word, hash_word, uint_word
from hanse.protocol.signatures import (
    Address,
    DigestSigner,
    Hash32,
    Signature,
    keccak,
    parse_address,
    parse_hash32,
    to_hex,
)
from hanse.protocol.wire.files import FileForm

FORMAT = "hanse-observation-1"

FILE_BYTES_MAX = 4_096
"""An observation's file has about 700 bytes."""

FIRST_TOKEN_MS_MAX = 600_000
"""Ten minutes: no request waits longer, so a larger number is no measurement."""

TIME_S_MAX = 2**40

_NUMBERS = {Word.REQUEST_FAILED: 1, Word.FIRST_TOKEN: 2}
"""As signed. Audits are shown, by evidence."""

_TYPEHASH = keccak(
    b"Observation(address provider,address witness,uint256 word,uint256 firstTokenMs,"
    b"bytes32 requestId,uint256 seenAt)"
)


class Observation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a witness says it has seen.

    Attributes:
        provider: whom it is about.
        witness: who says so.
        word: `request_failed` or `first_token`.
        first_token_ms: of `first_token`; 0 otherwise.
        request_id: of the request.
        seen_at: unix seconds.
    """

    provider: Address
    witness: Address
    word: Word
    first_token_ms: int
    request_id: Hash32
    seen_at: int

    def get_digest(self, domain: Domain) -> bytes:
        """What the witness signs."""
        fields = (
            _TYPEHASH,
            address_word(self.provider),
            address_word(self.witness),
            uint_word(_NUMBERS[self.word]),
            uint_word(self.first_token_ms),
            hash_word(self.request_id),
            uint_word(self.seen_at),
        )
        return domain.digest(keccak(b"".join(fields)))


class _Domain(msgspec.Struct, forbid_unknown_fields=True):
    chain_id: int
    escrow: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    domain: _Domain
    observation: Observation
    signature: str


FORM = FileForm(FORMAT, _File, FILE_BYTES_MAX, "evidence_invalid", "this observation does not hold")


def sign_observation(observation: Observation, domain: Domain, signer: DigestSigner) -> bytes:
    """The observation's file.

    Raises:
        VerificationError: `evidence_invalid`, if it is none that anybody would take.
    """
    _check(observation)
    signature: Signature = signer.sign_digest(observation.get_digest(domain))
    file = _File(FORMAT, _Domain(domain.chain_id, domain.escrow), observation, signature)
    return msgspec.json.encode(file) + b"\n"


def is_observation(raw: bytes) -> bool:
    """Whether a file means to be an observation, and not an audit's evidence."""
    return FORM.is_meant(raw)


def verify_observation(raw: bytes, domain: Domain) -> Testimony:
    """Check an observation's file of anybody: its form, its ranges, its market and its signature.

    Raises:
        VerificationError: `evidence_invalid`.
    """
    file = FORM.decode(raw)
    found = Domain(file.domain.chain_id, file.domain.escrow)
    if found != domain:
        raise FORM.refuse("it is of another market")
    observation = file.observation
    _check(observation)
    digest = observation.get_digest(domain)
    FORM.verify_signature(digest, file.signature, observation.witness, "the observation")
    return Testimony(
        to_hex(digest),
        observation.provider,
        observation.witness,
        observation.word,
        observation.seen_at,
        observation.first_token_ms,
    )


def _check(observation: Observation) -> None:
    with FORM.reading():
        lower = (
            parse_address(observation.provider, "provider"),
            parse_address(observation.witness, "witness"),
            parse_hash32(observation.request_id, "request_id"),
        )
    if lower != (observation.provider, observation.witness, observation.request_id):
        raise FORM.refuse("addresses and hashes have to be in small letters")
    if observation.word not in _NUMBERS:
        raise FORM.refuse(f"{observation.word} is shown by evidence, not observed")
    if not 0 <= observation.first_token_ms <= FIRST_TOKEN_MS_MAX:
        raise FORM.refuse(
            f"first_token_ms is {observation.first_token_ms}, at most {FIRST_TOKEN_MS_MAX}"
        )
    if not 0 <= observation.seen_at < TIME_S_MAX:
        raise FORM.refuse(f"seen_at is {observation.seen_at}, it has to be unix seconds")
