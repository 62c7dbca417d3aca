"""`hanse keys`: create and list this home's encrypted keys."""

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError


@group(
    "keys",
    short_help="Create and list keys.",
    examples=(
        ("A key for a user", "hanse keys create user"),
        ("Which keys there are", "hanse keys list"),
    ),
)
def keys() -> None:
    """Create and list this home's keys.

    A key is a file HOME/keys/NAME.json, encrypted by a password (keystore version 3, as geth and
    ethers write it), readable by its owner only. The password comes from a prompt, HANSE_PASSWORD,
    the file that HANSE_PASSWORD_FILE names, or the desktop's keyring; never from an argument.
    """


@keys.command_of(
    "create",
    short_help="Make a new key, encrypted by a password.",
    examples=(
        ("A key for a user, the password at a prompt", "hanse keys create user"),
        ("In a script", "HANSE_PASSWORD_FILE=secret.txt hanse keys create provider --json"),
    ),
)
@click.argument("name")
@click.option("--keyring", is_flag=True, help="Keep the password in the desktop's keyring.")
@click.option(
    "--light",
    is_flag=True,
    help="Weak encryption that opens in 10 ms instead of 1 s: for tests and local chains only.",
)
@pass_session
def create(session: Session, /, name: str, keyring: bool, light: bool) -> None:
    """Make the key NAME and print its address.

    An existing key is never replaced.
    """
    from hanse.chain.keys import (
        Scrypt,
        create_keystore,
        get_password,
        store_in_keyring,
        verify_keyring,
    )

    path = session.get_key_path(name)
    if path.exists():
        raise RequestError("usage", f"{path} exists; a key file is never replaced")
    if keyring:
        verify_keyring()
    password = get_password(name, prompt=_ask_twice)
    key = create_keystore(path, password, scrypt=Scrypt.LIGHT if light else Scrypt.STANDARD)
    if keyring:
        store_in_keyring(key.address, password)
    session.output.show(
        {"name": name, "address": key.address, "path": str(path)},
        lambda: session.output.fields((("name", name), ("address", key.address), ("file", path))),
    )
    session.output.note("Keep a copy of file and password: without both the money is lost.")


@keys.command_of(
    "list",
    short_help="List the keys and their addresses.",
    examples=(("Names and addresses", "hanse keys list"),),
)
@pass_session
def list_keys(session: Session) -> None:
    """List the keys of this home; no password is needed."""
    names = sorted(path.stem for path in session.keys_folder.glob("*.json"))
    found = [(name, session.get_key_address(name)) for name in names]
    if not found:
        session.output.note(
            f"No keys in {session.keys_folder}; make one with: hanse keys create user"
        )
    session.output.show(
        {"keys": [{"name": name, "address": address} for name, address in found]},
        lambda: session.output.table(("name", "address"), found) if found else None,
    )


@keys.command_of(
    "show-address",
    short_help="Print the address of one key.",
    examples=(("The address alone, for a script", "hanse keys show-address user"),),
)
@click.argument("name")
@pass_session
def show_address(session: Session, /, name: str) -> None:
    """Print the address of the key NAME; no password is needed."""
    address = session.get_key_address(name)
    session.output.show({"name": name, "address": address}, lambda: address)


def _ask_twice(text: str) -> str:
    return str(click.prompt(text.rstrip(": "), hide_input=True, confirmation_prompt=True, err=True))
