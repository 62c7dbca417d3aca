"""`hanse receipts verify`: files that are no receipt's, with and without a look at the chain."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.verification.audits.bought_answers import sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import make_receipt_document

ON_CHAIN = [("--chain",), ("--rpc", "http://127.0.0.1:1")]


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[1]", b'{"format": "hanse-record-1"'])
@pytest.mark.parametrize("options", ON_CHAIN)
def test_what_is_no_receipt_is_said_so_whatever_was_to_be_looked_up(
    run: Run, tmp_path: Path, content: bytes, options: tuple[str, ...]
) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(content)
    offline = run("receipts", "verify", str(file), "--json")
    assert (offline.exit_code, offline.error["code"]) == (8, "receipt_invalid")
    assert "this receipt file does not hold" in offline.error["message"]
    looked_up = run("receipts", "verify", str(file), *options, "--json")
    assert (looked_up.exit_code, looked_up.error) == (8, offline.error)


@pytest.mark.parametrize("options", ON_CHAIN)
def test_a_receipt_without_a_root_is_no_record(
    run: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(make_receipt_document(sell(ToyModel(), 8))))
    assert run("receipts", "verify", str(file), "--json").exit_code == 0
    refused = run("receipts", "verify", str(file), *options, "--json")
    assert (refused.exit_code, refused.error["code"]) == (2, "usage")
    assert "has no root" in refused.error["message"]
