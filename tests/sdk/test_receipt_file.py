"""Receipt files: true ones pass offline, and every change of one is found."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hanse.protocol.errors import RequestError, VerificationError
from hanse.sdk import verify_receipt_document, verify_receipt_file
from tests.sdk.conftest import World

BODY = b'{"model": "echo", "messages": [], "max_tokens": 50}'


@pytest.fixture
async def document(world: World) -> dict[str, Any]:
    async with world.open() as hanse:
        answer = await hanse.request("/v1/chat/completions", BODY)
        await answer.read()
        exported = await hanse.export_receipt(answer.request_id)
        with pytest.raises(RequestError, match="no receipt"):
            await hanse.export_receipt("0x" + "00" * 32)
    return exported


def test_a_true_receipt_passes(document: dict[str, Any], tmp_path: Path, world: World) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(document))
    found = verify_receipt_file(file)
    assert found.receipt_key == world.cheap.key.address
    assert found.receipt.receipt.fee == 22


def test_every_change_is_found(document: dict[str, Any]) -> None:
    """Each leaf of the file, changed alone."""
    changed = 0
    for part, fields in document.items():
        for name in fields if isinstance(fields, dict) else [None]:
            lie = copy.deepcopy(document)
            holder, key = (lie, part) if name is None else (lie[part], name)
            holder[key] = _change(holder[key])
            with pytest.raises(VerificationError):
                verify_receipt_document(json.dumps(lie).encode())
            changed += 1
    assert changed > 40


def test_a_byte_that_moves_from_one_field_to_another_is_found(document: dict[str, Any]) -> None:
    """The signed words stay the same as text; what they say does not."""
    lie = copy.deepcopy(document)
    voucher = lie["voucher"]
    fee = f"{int(voucher['maximum_fee']):064x}"
    voucher["body_hash"] += fee[:2]
    moved = fee[2:] + voucher["request_id"][2:4]
    voucher["maximum_fee"] = type(voucher["maximum_fee"])(int(moved, 16))
    voucher["request_id"] = "0x" + voucher["request_id"][4:]
    with pytest.raises(VerificationError):
        verify_receipt_document(json.dumps(lie).encode())


def _change(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value, "http://other"]
    if isinstance(value, dict):
        return {name: _change(inner) for name, inner in value.items()}
    if value.isdigit():
        return str(int(value) + 1)
    if value.startswith("0x"):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    return value + "x"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b"null", b"[" * 10_000])
def test_what_is_no_receipt_file_is_refused(content: bytes) -> None:
    with pytest.raises(VerificationError, match="this receipt file does not hold"):
        verify_receipt_document(content)


def test_missing_and_huge_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot read"):
        verify_receipt_file(tmp_path / "none.json")
    huge = tmp_path / "huge.json"
    huge.write_bytes(b" " * 70_000)
    with pytest.raises(VerificationError, match="more than 65536 bytes"):
        verify_receipt_file(huge)
