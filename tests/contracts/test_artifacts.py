"""The committed artefacts are what the sources compile to; the face, the pages and the gas agree.

After a wanted change: `python -m hanse.contracts.compile`, `python -m hanse.contracts.abi_page
docs/contracts`, and `UPDATE_SNAPSHOTS=1 pytest tests/contracts/test_artifacts.py`.
"""

import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

import hanse.contracts
from benchmarks.bench_gas import measure
from hanse.contracts.abi_page import PAGES, format_page
from hanse.contracts.artifacts import load_artifact
from hanse.contracts.claims import Claim, ClaimResult, decode_results, encode_settle
from hanse.contracts.compile import CONTRACTS, compile_contract, format_artifact
from hanse.contracts.deployment import (
    Terms,
    derive_panel_terms,
    get_create_address,
    plan_deployment,
)
from hanse.protocol import limits
from hanse.protocol.ledger import ClaimStatus
from tests.contracts.local_evm import CHAIN_ID, Hanse, Key, LocalEvm, key_of, reverts

SOURCES = Path(hanse.contracts.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "contracts"
SNAPSHOTS = Path(__file__).parent / "snapshots"
RUNTIME_BYTES_MAX = 24_576  # EIP-170


@pytest.mark.parametrize("name", CONTRACTS)
def test_artifact_is_what_the_source_compiles_to(name: str) -> None:
    committed = (SOURCES / "artifacts" / f"{name}.json").read_text(encoding="utf-8")
    compiled = compile_contract(name)
    for part in ("abi", "storage_layout", "transient_layout"):
        assert compiled[part] == json.loads(committed)[part], (
            f"the {part} of {name} changed: run `python -m hanse.contracts.compile` if it should"
        )
    assert committed == format_artifact(compiled), (
        f"{name}'s artefact is stale: run `python -m hanse.contracts.compile`"
    )
    assert compiled["runtime_bytes"] <= RUNTIME_BYTES_MAX


def test_storage_word_stays_where_it_is() -> None:
    """Disputes and indexers will read these slots; a moved one would be read wrongly for ever."""
    slots = {name: slot["slot"] for name, slot in load_artifact("Escrow").storage_layout.items()}
    assert slots == {
        "accounts": 0,
        "sub_account_words": 1,
        "refund_words": 2,
        "nonces": 3,
        "compensations": 4,
    }


@pytest.mark.parametrize(("file_name", "contract"), PAGES.items())
def test_abi_page_is_current(file_name: str, contract: Any) -> None:
    assert (DOCS / file_name).read_text(encoding="utf-8") == format_page(load_artifact(contract)), (
        "run `python -m hanse.contracts.abi_page docs/contracts`"
    )


def test_every_function_has_a_note() -> None:
    for name in ("Escrow", "Registry", "Records", "Disputes"):
        artifact = load_artifact(name)
        noted = artifact.notes["userdoc"]["methods"]
        getters = set(artifact.storage_layout) | {"asset", "registry", "escrow", "lock_time_s"}
        getters |= {"minimum_stake", "dispute_window_s", "unbonding_time_s", "key_delay_s"}
        getters |= {"disputes", "terms"}
        for function in artifact.functions.values():
            signature = f"{function.name}({','.join(function.inputs)})"
            assert signature in noted or function.name in getters, signature


def test_no_contract_has_an_admin() -> None:
    """Nothing in either ABI sounds like a key over everybody's money."""
    words = ("owner", "admin", "pause", "upgrade", "set_", "initialize", "migrate", "rescue")
    for name in ("Escrow", "Registry", "Records", "Disputes"):
        for function in load_artifact(name).functions:
            assert not any(word in function.lower() for word in words), function


def test_limits_are_the_protocols() -> None:
    source = (SOURCES / "Escrow.vy").read_text()
    for name in (
        "CLAIMS_PER_SETTLEMENT_MAX",
        "SUB_ACCOUNTS_PER_OPEN_MAX",
        "AMOUNT_MAX",
        "SEQUENCE_MAX",
        "LOCK_TIME_S_MIN",
        "LOCK_TIME_S_MAX",
    ):
        (line,) = [line for line in source.splitlines() if line.startswith(f"{name}: constant")]
        assert eval(line.split("=")[1]) == getattr(limits, name), name
    for status in ClaimStatus:
        assert f"STATUS_{status.name}: constant(uint256) = {status.value}\n" in source


def test_gas_snapshot() -> None:
    path = SNAPSHOTS / "gas.json"
    measured = {
        " ".join(str(row[part]) for part in ("case", "claims") if part in row): row["gas"]
        for row in measure()
    }
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    assert measured == json.loads(path.read_text(encoding="utf-8")), (
        "gas changed: UPDATE_SNAPSHOTS=1 pytest tests/contracts/test_artifacts.py if it should"
    )


def test_calls_decode_to_what_was_encoded() -> None:
    escrow = load_artifact("Escrow")
    provider, signer = key_of("provider").address, key_of("session key").address
    data = escrow.encode_call("open", 5, [(provider, signer, 3)])
    decoded = escrow.decode_call(data)
    assert decoded == ("open", {"deposit_amount": 5, "funds": ((provider, signer, 3),)})
    with pytest.raises(KeyError, match="no function with selector 0x00000000"):
        escrow.decode_call(bytes(4))
    with pytest.raises(KeyError, match="no event"):
        escrow.decode_log([bytes(32)], b"")
    with pytest.raises(KeyError, match="no event"):
        escrow.decode_log([], b"")


def test_known_selectors_and_topics() -> None:
    """Against values that every ERC-20 tool knows."""
    asset = load_artifact("TestAsset")
    assert asset.functions["transfer"].selector.hex() == "a9059cbb"
    assert asset.functions["permit"].selector.hex() == "d505accf"
    topic = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert asset.events["Transfer"].topic.hex() == topic


def test_claims_refuse_what_does_not_fit() -> None:
    fine = {"user": "0x" + "11" * 20, "signer": "0x" + "22" * 20, "cumulative_max": 2**96 - 1}
    fine |= {"claimed": 2**96 - 1, "sequence": 2**64 - 1, "sequence_max": 2**64 - 1}
    fine |= {"request_hash": b"\x33" * 32, "r": b"\x44" * 32, "vs": b"\x55" * 32}
    data = encode_settle("0x" + "66" * 20, [Claim(**fine)])
    name, decoded = load_artifact("Escrow").decode_call(data)
    (row,) = decoded["claims"]
    assert (name, row[0], row[2]) == (
        "settle",
        int("11" * 20 + "ff" * 12, 16),
        (2**64 - 1) << 192 | 2**64 - 1,
    )
    for field, bits in (("claimed", 96), ("cumulative_max", 96), ("sequence", 64)):
        for value in (2**bits, -1):
            with pytest.raises(OverflowError, match=f"{value} does not fit {bits} bits"):
                Claim(**{**fine, field: value}).to_abi()


def test_results_decode_and_sequences_extend() -> None:
    word = int("ab" * 15, 16) << 136 | 5 << 128 | 7 << 96 | 12
    (result,) = decode_results([word])
    assert result == ClaimResult(b"\xab" * 15, 5, 7, 12)
    assert result.extend_sequence(7) == 7
    assert result.extend_sequence(8) == 2**32 + 7


@pytest.mark.parametrize("nonce", [0, 1, 127, 128, 255, 256, 70_000])
def test_create_address_against_eth_accounts_rlp(nonce: int) -> None:
    import rlp
    from sha3 import keccak_256

    deployer = key_of("deployer").address
    expected = keccak_256(rlp.encode([bytes.fromhex(deployer[2:]), nonce])).digest()[12:]
    assert get_create_address(deployer, nonce) == "0x" + expected.hex()


def deploy(chain: LocalEvm, deployer: Key, terms: Terms) -> None:
    nonce = chain.evm.basic(deployer.address).nonce
    for step in plan_deployment(deployer.address, nonce, terms):
        chain.deploy(deployer.address, step.data, load_artifact(step.name))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lock_time_s": 3_599}, "lock time"),
        ({"lock_time_s": 7 * 86_400 + 1, "unbonding_time_s": 30 * 86_400}, "lock time"),
        ({"unbonding_time_s": 4 * 86_400 - 1}, "unbonding"),
        ({"unbonding_time_s": 90 * 86_400 + 1}, "unbonding"),
        ({"unbonding_time_s": 3 * 86_400}, "unbonding"),
        ({"dispute_window_s": 3_599}, "dispute window"),
        ({"dispute_window_s": 30 * 86_400 + 1, "unbonding_time_s": 60 * 86_400}, "dispute window"),
        ({"key_delay_s": 3_599}, "key delay"),
        ({"key_delay_s": 30 * 86_400 + 1}, "key delay"),
        ({"minimum_stake": 0}, "stake"),
        ({"minimum_stake": 2**96}, "stake"),
    ],
)
def test_terms_outside_their_bounds_do_not_deploy(changes: dict[str, int], reason: str) -> None:
    with reverts(reason):
        deploy(LocalEvm(), key_of("deployer"), Terms(**changes))


@pytest.mark.parametrize(
    "terms",
    [
        Terms(lock_time_s=3_600, dispute_window_s=3_600, unbonding_time_s=7_200),
        Terms(lock_time_s=7 * 86_400, unbonding_time_s=90 * 86_400),
    ],
)
def test_terms_at_their_bounds_deploy(terms: Terms) -> None:
    deploy(LocalEvm(), key_of("deployer"), terms)


def test_wrongly_predicted_escrow_does_not_deploy(bare: Hanse) -> None:
    """Neither a second Escrow over one Registry, nor one over another asset, nor over nothing."""
    chain, deployer = bare.chain, key_of("deployer").address
    artifact = load_artifact("Escrow")
    for asset, registry, reason in (
        (bare.asset, bare.registry, "registry"),
        (deployer, bare.registry, "asset"),
        (bare.asset, bare.asset, ""),
    ):
        data = artifact.encode_deploy(asset, registry, 86_400)
        with reverts(reason):
            chain.deploy(deployer, data, artifact)
    other = chain.deploy(deployer, load_artifact("TestAsset").bytecode, load_artifact("TestAsset"))
    nonce = chain.evm.basic(deployer).nonce
    registry = plan_deployment(deployer, nonce, Terms(), other)[0]
    chain.deploy(deployer, registry.data, load_artifact("Registry"))
    with reverts("registry"):
        chain.deploy(
            deployer, artifact.encode_deploy(bare.asset, registry.address, 86_400), artifact
        )


def test_deployed_terms_can_be_read(bare: Hanse) -> None:
    view, terms = bare.chain.view, bare.terms
    assert view(bare.escrow, "asset") == view(bare.registry, "asset") == bare.asset
    assert view(bare.escrow, "registry") == bare.registry
    assert view(bare.registry, "escrow") == bare.escrow
    assert view(bare.registry, "disputes") == bare.disputes
    assert view(bare.disputes, "terms") == astuple(derive_panel_terms(terms))
    for name in ("asset", "registry", "escrow"):
        assert view(bare.disputes, name) == getattr(bare, name)
    assert view(bare.escrow, "lock_time_s") == terms.lock_time_s
    for name in ("minimum_stake", "dispute_window_s", "unbonding_time_s", "key_delay_s"):
        assert view(bare.registry, name) == getattr(terms, name)
    assert view(bare.escrow, "DOMAIN_SEPARATOR") == bare.domain.separator
    assert bare.domain.chain_id == CHAIN_ID
