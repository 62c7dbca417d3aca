"""A new file is there whole or not at all, and never replaces another."""

import os
import stat
import threading
from pathlib import Path

import pytest

from hanse.chain.keys import write_new_file
from tests.chain.dying_writer import write_and_fail


def test_a_new_file_is_private_and_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_new_file(path, lambda: b"first")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError, match=str(path)):
        write_new_file(path, lambda: b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["secret"], "no draft stays"


def test_of_many_that_write_at_once_one_wins_and_the_others_know(tmp_path: Path) -> None:
    path, together, written = tmp_path / "secret", threading.Barrier(8), []

    def write(data: bytes) -> None:
        together.wait()
        try:
            write_new_file(path, lambda: data)
        except FileExistsError:
            return
        written.append(data)

    writers = [threading.Thread(target=write, args=(b"%d" % one * 1000,)) for one in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert written == [path.read_bytes()]
    assert os.listdir(tmp_path) == ["secret"]


@pytest.mark.parametrize("dies", [True, False])
def test_what_dies_or_fails_while_writing_leaves_no_file(tmp_path: Path, dies: bool) -> None:
    path = tmp_path / "secret"
    imports = "from hanse.chain.keys import write_new_file"
    write_and_fail(path, imports, "write_new_file(path, lambda: b'ten bytes.')", dies=dies)
    assert not path.exists()
    write_new_file(path, lambda: b"whole")
    assert path.read_bytes() == b"whole"
