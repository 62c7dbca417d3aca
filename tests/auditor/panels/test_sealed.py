"""What is sealed on chain stays as it was sealed."""

import pytest

from hanse.auditor.panels.sealed import find_sealed, get_path, make_sealed, save_sealed
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict


def test_what_was_sealed_is_not_sealed_anew(tmp_path):
    """A second salt for a vote whose first is on the chain already would lose that vote."""
    path = get_path(tmp_path, "0x" + "c4" * 32, "0x" + "a0" * 20, "vote-1")
    assert find_sealed(path) is None
    first = make_sealed(Verdict.UPHELD)
    save_sealed(path, first)
    assert find_sealed(path) == first
    with pytest.raises(RequestError, match="is there already"):
        save_sealed(path, make_sealed(Verdict.UPHELD))
    assert find_sealed(path) == first
    path.write_text("{")
    with pytest.raises(RequestError, match="vote-1"):
        find_sealed(path)
