"""Seeds of sampling that neither side can choose alone.

A sampler whose seed both sides can compute leaves no freedom: given the model's distribution, each
token follows. So an auditor can ask of every token of a sampled answer whether it is the one that
this seed gives (rung V2 of `docs/verification/audits.md`).

The seed depends on the user's random request id, so the provider cannot prepare for it, and on the
provider's address, so two providers asked by one request id do not sample alike. A caller that
names a seed of its own (OpenAI's `seed`) keeps it: that is known to both sides as well, and the
caller has asked that equal requests be answered equally.

Source: Token-DiFR (arXiv 2511.20621) for checking tokens by a shared seed.
"""

from hanse.protocol.signatures import Address, Hash32, keccak, to_bytes

SEED_TAG = b"hanse seed 1"

SEED_MAX = 2**32 - 2
"""The highest seed that is used: llama.cpp's is 32 bits wide, and 2**32 - 1 there means that the
engine takes a random one."""

NONCE_BYTES_MAX = 32
"""A user's nonce; as long as any hash, so a caller that has more hashes it."""


def get_sampling_seed(nonce: bytes, request_id: Hash32, provider: Address) -> int:
    """The seed of one request's sampler, 0 .. SEED_MAX.

    Args:
        nonce: what the user adds, at most NONCE_BYTES_MAX bytes; empty if nothing.
        request_id: the signed request's id, 32 bytes that the user drew.
        provider: who serves it.

    Raises:
        ValueError: the nonce is too long; both sides check it before they come here.
    """
    if len(nonce) > NONCE_BYTES_MAX:
        raise ValueError(f"a nonce has at most {NONCE_BYTES_MAX} bytes, not {len(nonce)}")
    digest = keccak(SEED_TAG + keccak(nonce) + to_bytes(request_id) + to_bytes(provider))
    return int.from_bytes(digest[:8], "big") % (SEED_MAX + 1)


def get_request_seed(asked: int | None, request_id: Hash32, provider: Address) -> int:
    """The seed by which a request has to be sampled: the caller's own, else the derived one.

    `asked` is the body's `seed`. Engines take its low 32 bits; those that mean "a random one" to
    llama.cpp count as none.
    """
    if asked is not None and asked % 2**32 <= SEED_MAX:
        return asked % 2**32
    return get_sampling_seed(b"", request_id, provider)
