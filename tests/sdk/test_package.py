"""What `hanse.sdk` offers, and what need not be imported for it."""

import subprocess
import sys

import pytest

import hanse.sdk

OF_THE_CHAIN = {"eth_abi", "hanse.chain.rpc", "hanse.sdk.client"}


def test_every_public_name_is_there():
    for name in hanse.sdk.__all__:
        assert getattr(hanse.sdk, name).__name__ == name


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Broker"):
        hanse.sdk.Broker  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import hanse.gateway",
        "from hanse.cli.main import main\n"
        "sys.argv = ['hanse', 'gateway', 'keys', 'list', '--home', home]\n"
        "with contextlib.suppress(SystemExit):\n    main()\n",
    ],
    ids=["a gateway", "a command about keys"],
)
def test_what_needs_no_chain_does_not_wait_for_its_libraries(tmp_path, code):
    """They take half a second of processor time."""
    code = f"import contextlib, sys\nhome = {str(tmp_path)!r}\n{code}\n"
    code += f"print('LOADED', {OF_THE_CHAIN} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED set()" in shown.stdout
