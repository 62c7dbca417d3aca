"""What `hanse.chain` offers, and what its import costs."""

import subprocess
import sys

import pytest

import hanse.chain


def test_every_public_name_is_there():
    assert sorted(hanse.chain.__all__) == sorted(hanse.chain._MODULES)
    for name in hanse.chain.__all__:
        assert getattr(hanse.chain, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Ledger"):
        hanse.chain.Ledger  # noqa: B018


HEAVY = {"aiohttp", "eth_account", "eth_keyfile", "py_ecc"}


def test_no_side_imports_what_only_the_tests_need():
    """Together they would take a second of every command, and 60 MB."""
    sides = "hanse.sdk.sync, hanse.gateway, hanse.provider, hanse.recorder, hanse.chain.localnode"
    code = f"import sys, {sides}; print({HEAVY} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
