"""Roles and a fresh market for each test; a whole deployment takes 5 ms."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from hanse.contracts.artifacts import Artifact, parse_artifact
from hanse.contracts.compile import compile_contract
from tests.contracts.local_evm import Hanse, Key, LocalEvm, deploy_hanse, key_of

ASSETS = Path(__file__).parent / "assets"


@cache
def attack_asset(name: str) -> Artifact:
    return parse_artifact(compile_contract(name, ASSETS))


@pytest.fixture
def depositor() -> Key:
    return key_of("depositor")


@pytest.fixture
def session() -> Key:
    """A gateway's session key: the signer of the depositor's vouchers."""
    return key_of("session key")


@pytest.fixture
def provider() -> Key:
    return key_of("provider")


@pytest.fixture
def receipt_key() -> Key:
    return key_of("receipt key")


@pytest.fixture
def payee() -> Key:
    return key_of("payee")


@pytest.fixture
def attacker() -> Key:
    return key_of("attacker")


@pytest.fixture
def bare() -> Hanse:
    """The contracts, and nobody in them."""
    return deploy_hanse()


@pytest.fixture
def hanse(
    bare: Hanse, depositor: Key, session: Key, provider: Key, receipt_key: Key, payee: Key
) -> Hanse:
    """A staked provider; a depositor with 600 free, 400 set aside and 9,000 in its wallet."""
    bare.register(provider, receipt_key, payee.address)
    bare.mint(depositor.address, 10_000)
    bare.escrow_call(depositor, "open", 1_000, [(provider.address, session.address, 400)])
    return bare


@pytest.fixture
def on_asset() -> Callable[[str], Hanse]:
    """The contracts over an attack asset of this name."""

    def build(name: str) -> Hanse:
        chain = LocalEvm()
        artifact = attack_asset(name)
        asset = chain.deploy(key_of("asset's author").address, artifact.bytecode, artifact)
        return deploy_hanse(asset=asset, chain=chain)

    return build
