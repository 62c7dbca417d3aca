"""Offers: what a provider serves, for how much, and the usage that its prices apply to.

Source: `docs/protocol.md`, section "Signed messages".
"""

from typing import ClassVar

import msgspec

from hanse.protocol.eip712 import address_word, hash_word, string_word, strings_word, uint_word
from hanse.protocol.signatures import Address, Hash32, Signature, keccak
from hanse.protocol.units import get_fee


class Usage(msgspec.Struct, frozen=True):
    """Metered tokens. `input_tokens` leaves out the cached ones, so the three never overlap."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Prices(msgspec.Struct, frozen=True):
    """Base units per million tokens."""

    input_per_mtok: int
    cached_per_mtok: int
    output_per_mtok: int

    def get_fee(self, usage: Usage) -> int:
        """The fee of this usage in base units, rounded up once."""
        return get_fee(
            (
                (usage.input_tokens, self.input_per_mtok),
                (usage.cached_tokens, self.cached_per_mtok),
                (usage.output_tokens, self.output_per_mtok),
            )
        )


class Offer(msgspec.Struct, frozen=True):
    """A provider's signed statement of what it serves and for how much.

    Attributes:
        provider: the provider's (owner's) address.
        service_id: number of the service in the Registry, chosen by the provider.
        service_type: `chat` (chat and plain completions), `embeddings`, `transcription` or
            `speech`; it says what a unit is (`hanse.protocol.wire.operations`).
        model: name that callers ask for.
        manifest_root: Merkle root over the model's files; zero where the provider only resells.
        quantisation: such as `Q4_0`, `F16`, or `unknown`.
        engine: such as `llama` or `upstream`.
        context_tokens: most tokens of prompt and answer together.
        output_tokens_max: most tokens of one answer.
        prices: base units per million tokens.
        verifiability: `tee`, `embedded`, `sampled` or `reputation`.
        endpoints: base URLs of the broker, best first.
        encryption_key: X25519 public key for what is sealed to the provider.
        valid_until: unix seconds after which the offer binds nobody.
        revision: rises with every change of this service's offer.
        region: where it is served, such as `eu` or `us-east`, as the provider says; empty if it
            does not say.
    """

    TYPE: ClassVar[str] = (
        "Offer(address provider,uint256 serviceId,string serviceType,string model,"
        "bytes32 manifestRoot,string quantisation,string engine,uint256 contextTokens,"
        "uint256 outputTokensMax,uint256 inputPerMtok,uint256 cachedPerMtok,uint256 outputPerMtok,"
        "string verifiability,string[] endpoints,bytes32 encryptionKey,uint256 validUntil,"
        "uint256 revision,string region)"
    )

    provider: Address
    service_id: int
    service_type: str
    model: str
    manifest_root: Hash32
    quantisation: str
    engine: str
    context_tokens: int
    output_tokens_max: int
    prices: Prices
    verifiability: str
    endpoints: tuple[str, ...]
    encryption_key: Hash32
    valid_until: int
    revision: int
    region: str = ""

    def struct_hash(self) -> bytes:
        """The offer hash: what the Registry publishes and a request names."""
        return keccak(
            b"".join(
                (
                    _OFFER_TYPEHASH,
                    address_word(self.provider),
                    uint_word(self.service_id),
                    string_word(self.service_type),
                    string_word(self.model),
                    hash_word(self.manifest_root),
                    string_word(self.quantisation),
                    string_word(self.engine),
                    uint_word(self.context_tokens),
                    uint_word(self.output_tokens_max),
                    uint_word(self.prices.input_per_mtok),
                    uint_word(self.prices.cached_per_mtok),
                    uint_word(self.prices.output_per_mtok),
                    string_word(self.verifiability),
                    strings_word(self.endpoints),
                    hash_word(self.encryption_key),
                    uint_word(self.valid_until),
                    uint_word(self.revision),
                    string_word(self.region),
                )
            )
        )


class SignedOffer(msgspec.Struct, frozen=True):
    """An offer and its receipt key's signature."""

    offer: Offer
    signature: Signature


_OFFER_TYPEHASH = keccak(Offer.TYPE.encode())
