"""Both sides compute one seed, and nobody chooses it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.commitments.seeds import SEED_MAX, get_request_seed, get_sampling_seed

REQUEST = "0x" + "11" * 32
PROVIDER = "0x" + "22" * 20

hashes = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())


def test_the_seed_is_the_documented_one() -> None:
    # a change of the rule would make every honest provider's answers look like cheats
    assert get_sampling_seed(b"", REQUEST, PROVIDER) == 3_231_363_326
    assert get_sampling_seed(b"nonce", REQUEST, PROVIDER) == 1_189_867_505


@given(st.binary(max_size=32), hashes, addresses)
def test_each_part_moves_the_seed_and_it_fits_an_engine(
    nonce: bytes, request_id: str, provider: str
) -> None:
    seed = get_sampling_seed(nonce, request_id, provider)
    assert 0 <= seed <= SEED_MAX
    others = {
        get_sampling_seed(nonce[:31] + b"\x00", request_id, provider),
        get_sampling_seed(nonce, "0x" + "0f" * 32, provider),
        get_sampling_seed(nonce, request_id, "0x" + "0f" * 20),
    }
    assert others != {seed}


def test_a_nonce_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 32 bytes, not 33"):
        get_sampling_seed(bytes(33), REQUEST, PROVIDER)


def test_a_caller_s_own_seed_is_kept_and_a_random_one_is_derived() -> None:
    derived = get_sampling_seed(b"", REQUEST, PROVIDER)
    assert get_request_seed(7, REQUEST, PROVIDER) == 7
    assert get_request_seed(2**32 + 7, REQUEST, PROVIDER) == 7
    assert get_request_seed(None, REQUEST, PROVIDER) == derived
    assert get_request_seed(-1, REQUEST, PROVIDER) == derived
