"""Encryption keys of this home: HOME/keys/NAME.x25519, made on first use.

A provider always has one, since its offers name it. A user has one as soon as a gateway or a chat
keeps traces. It is encrypted by the password of the key that was unlocked when it was made, and as
hard to guess; afterwards only the commands that read traces need that password.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.chain.keys import Scrypt, get_password, read_private_json
from hanse.cli.session import Session
from hanse.protocol.signatures import Hash32
from hanse.settlement.traces.capture import TraceSettings
from hanse.settlement.traces.encryption_key import (
    SUFFIX,
    create_encryption_key,
    find_public_key,
)
from hanse.settlement.traces.object_store import open_object_store

if TYPE_CHECKING:
    from hanse.sdk import Settings


def get_encryption_path(session: Session, name: str) -> Path:
    """Where the encryption key of a name is."""
    return session.get_key_path(name).with_name(f"{name}{SUFFIX}")


def open_encryption_key(session: Session, name: str, unlocked: str, *, use_keyring: bool) -> Hash32:
    """The public half of a name's encryption key; makes the key if there is none.

    `unlocked` is the key of this home whose password it gets.

    Raises:
        RequestError: `keystore_permissions`, `keystore_locked`.
    """
    path = get_encryption_path(session, name)
    found = find_public_key(path)
    if found is not None:
        return found
    session.unlock_key(unlocked, use_keyring=use_keyring)  # a mistyped password must not get in
    password = get_password(unlocked, use_keyring=use_keyring)
    raw = read_private_json(session.get_key_path(unlocked))
    is_light = raw["crypto"]["kdfparams"].get("n", 0) <= Scrypt.LIGHT
    scrypt = Scrypt.LIGHT if is_light else Scrypt.STANDARD
    public = create_encryption_key(path, password, scrypt=scrypt)
    session.output.note(f"made an encryption key, {path}: keep a copy, traces are sealed to it")
    return public


def keep_traces_of_user(
    session: Session, options: dict[str, Any], settings: "Settings"
) -> "Settings":
    """The settings of a user's side with what `--traces` asks for, and a key to seal traces to.

    Raises:
        RequestError: `configuration_invalid`, there is no such place to keep them;
            `keystore_permissions`, `keystore_locked`.
    """
    if not options["traces"]:
        return settings
    open_object_store(options["traces"])  # refused before a key is made for nothing
    unlocked = options["signer"] or options["key"]
    key = open_encryption_key(session, options["key"], unlocked, use_keyring=options["keyring"])
    return replace(settings, traces=get_trace_settings(options, key))


def get_trace_settings(options: dict[str, Any], encryption_key: Hash32) -> TraceSettings | None:
    """What `--traces` and `--traces-days` ask for."""
    if not options["traces"]:
        return None
    return TraceSettings(options["traces"], encryption_key, options["traces_days"])
