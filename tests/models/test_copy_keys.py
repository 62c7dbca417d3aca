"""Keys of copies and what is drawn from them: fixed for ever, on every machine."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hanse.models.copies.keys import KeyStream, commit_to_key, derive_copy_key
from hanse.models.copies.rotations import draw_rotation
from hanse.protocol.errors import RequestError

MASTER, ROOT, PROVIDER = bytes(range(32)), "0x" + "11" * 32, "0x" + "aa" * 20

DRAWN_WORDS = [3188680222221993960, 12835704671491096071]
DRAWN_ORDER = [7, 6, 2, 4, 1, 5, 3, 0]
DRAWN_SIGNS = [1, -1, -1, -1, -1, 1, 1, 1]
DRAWN_TURNS = "1d0e78bfd04fd8bd13217d3e6c917ebf"
TURNED_ROWS = (
    "affbf2c053166840d0d327bea90a6abfc5316040bb00d5bf9433e9c08cd4d93e"
    "c4db57c1e4d69b4190cc5cbf8ccd65c028b42c41527e0cc0899ea0c162572cbf"
)


def test_the_key_is_the_hkdf_that_the_docs_name() -> None:
    info = b"hanse copy 1" + bytes.fromhex("11" * 32 + "aa" * 20) + (7).to_bytes(8, "big")
    expected = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(MASTER)
    assert derive_copy_key(MASTER, ROOT, PROVIDER, 7) == expected


def test_each_part_of_the_order_changes_the_key() -> None:
    keys = {
        derive_copy_key(MASTER, ROOT, PROVIDER, 0),
        derive_copy_key(MASTER[::-1], ROOT, PROVIDER, 0),
        derive_copy_key(MASTER, "0x" + "12" * 32, PROVIDER, 0),
        derive_copy_key(MASTER, ROOT, "0x" + "ab" * 20, 0),
        derive_copy_key(MASTER, ROOT, PROVIDER, 1),
    }
    assert len(keys) == len({commit_to_key(key) for key in keys}) == 5


@pytest.mark.parametrize(("master", "epoch"), [(b"short", 0), (MASTER, -1), (MASTER, 2**64)])
def test_a_master_of_another_length_or_an_epoch_that_does_not_fit_is_refused(
    master: bytes, epoch: int
) -> None:
    with pytest.raises(RequestError):
        derive_copy_key(master, ROOT, PROVIDER, epoch)


def test_draws_are_these_very_values() -> None:
    """Were one of them to change, no copy could be made again or audited with its key."""
    stream = KeyStream(MASTER, "residual")
    assert list(stream.draw_words(2)) == DRAWN_WORDS
    assert list(stream.draw_permutation(8)) == DRAWN_ORDER
    assert list(stream.draw_signs(8)) == DRAWN_SIGNS
    cosine, sine = stream.draw_turns(2)
    assert cosine.tobytes().hex() + sine.tobytes().hex() == DRAWN_TURNS
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    assert draw_rotation(stream, 8).apply(rows).tobytes().hex() == TURNED_ROWS


def test_labels_have_streams_of_their_own() -> None:
    first, second = (KeyStream(MASTER, label).draw_words(4) for label in ("layer 1", "layer 2"))
    assert not set(first) & set(second)


@pytest.mark.parametrize("width", [2, 10, 128, 576])
def test_a_rotation_is_orthogonal_and_mixes_every_coordinate(width: int) -> None:
    matrix = draw_rotation(KeyStream(MASTER, f"width {width}"), width).apply(
        np.eye(width, dtype=np.float32)
    )
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(width), atol=2e-6)
    if width >= 128:  # as of a random orthogonal matrix, whose entries are normal
        assert 2.7 < (matrix**4).mean() * width**2 < 3.6


def test_rows_are_turned_alike_however_many_there_are() -> None:
    rotation = draw_rotation(KeyStream(MASTER, "rows"), 64)
    rows = np.random.default_rng(1).standard_normal((5_000, 64)).astype(np.float32)
    together = rotation.apply(rows)
    apart = np.concatenate([rotation.apply(rows[:7]), rotation.apply(rows[7:])])
    assert together.tobytes() == apart.tobytes()
