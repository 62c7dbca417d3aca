"""What is sealed on chain stays as it was sealed."""

import pytest

from hanse.auditor.panels.sealed import find_sealed, get_path, make_sealed, save_sealed
from hanse.protocol.errors import RequestError
from hanse.protocol.ledger.panels.sealing import Verdict
from hanse.store.folder_lock import hold_folder
from tests.chain.dying_writer import write_and_fail


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
    with pytest.raises(RequestError, match=r"vote-1.*remove it if nothing was sent"):
        find_sealed(path)


SEAL = """
from hanse.auditor.panels.sealed import make_sealed, save_sealed
from hanse.protocol.ledger.panels.sealing import Verdict
"""


@pytest.mark.parametrize("dies", [True, False])
def test_an_auditor_that_dies_while_it_keeps_its_vote_can_still_vote(tmp_path, dies):
    path = get_path(tmp_path, "0x" + "c4" * 32, "0x" + "a0" * 20, "vote-1")
    write_and_fail(path, SEAL, "save_sealed(path, make_sealed(Verdict.UPHELD))", dies=dies)
    assert find_sealed(path) is None
    vote = make_sealed(Verdict.UPHELD)
    save_sealed(path, vote)
    assert find_sealed(path) == vote


def test_an_empty_vote_was_never_sent_and_is_made_anew(tmp_path):
    path = get_path(tmp_path, "0x" + "c4" * 32, "0x" + "a0" * 20, "vote-1")
    path.parent.mkdir()
    path.touch()
    assert find_sealed(path) is None
    vote = make_sealed(Verdict.UPHELD)
    with (
        hold_folder(path.parent, "sealing"),
        pytest.raises(RequestError, match="another sealing runs"),
    ):
        save_sealed(path, vote)  # two at once could each remove what the other has just written
    save_sealed(path, vote)
    assert find_sealed(path) == vote
