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


def test_keys_need_neither_the_node_client_nor_the_abi_codec():
    """They take half a second, which `hanse keys list` would wait for."""
    code = "import sys, hanse.chain.keys; print({'aiohttp', 'eth_abi'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
