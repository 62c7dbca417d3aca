"""Secret keys: encrypted files, strict permissions, and a `Key` that never shows itself.

    create_keystore(folder / "user.json", password)            # a new key, written once, mode 0600
    key = unlock_keystore(folder / "user.json", get_password("user"))
    key.address, key.sign_digest(digest)

Files are keystore version 3 (the format of geth, ethers and eth-account), so that a key can move to
other tools. A folder or file that others may read is refused: the message says the chmod. Passwords
come from the environment, the desktop's keyring or a prompt.
"""

from hanse.chain.keys.key import Key, create_key
from hanse.chain.keys.key_files import (
    create_keystore,
    read_keystore_address,
    read_private_json,
    unlock_keystore,
    write_private_file,
)
from hanse.chain.keys.keystore import Scrypt, decrypt_secret, encrypt_secret
from hanse.chain.keys.modes import write_new_file
from hanse.chain.keys.passwords import get_password, store_in_keyring, verify_keyring

__all__ = [
    "Key",
    "create_key",
    "create_keystore",
    "unlock_keystore",
    "read_keystore_address",
    "read_private_json",
    "write_private_file",
    "write_new_file",
    "Scrypt",
    "encrypt_secret",
    "decrypt_secret",
    "get_password",
    "store_in_keyring",
    "verify_keyring",
]
