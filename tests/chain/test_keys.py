"""Keys at rest are encrypted and private; keys in memory never show themselves."""

import copy
import json
import os
import pickle
import stat
from pathlib import Path

import pytest
from eth_account import Account

from hanse.chain import (
    Key,
    Scrypt,
    create_key,
    create_keystore,
    get_password,
    read_keystore_address,
    unlock_keystore,
)
from hanse.chain.keys import decrypt_secret, encrypt_secret
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import recover_signer

PASSWORD = "correct horse"
SECRET = bytes(range(1, 33))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def write(folder: Path, key: Key | None = None) -> Path:
    path = folder / "user.json"
    create_keystore(path, PASSWORD, key=key, scrypt=Scrypt.LIGHT)
    return path


def test_a_key_signs_as_its_address() -> None:
    key = create_key()
    assert recover_signer(b"d" * 32, key.sign_digest(b"d" * 32)) == key.address


def test_a_key_shows_only_its_address(folder: Path) -> None:
    key = Key(SECRET)
    shown = f"{key!r} {key} {[key]} {key.__class__.__slots__}"
    assert key.address in shown
    assert SECRET.hex() not in shown
    assert str(int.from_bytes(SECRET, "big")) not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            leak(key)
    with pytest.raises(TypeError):
        vars(key)


def test_a_file_opens_with_its_password_and_no_other(folder: Path) -> None:
    path = write(folder, Key(SECRET))
    assert unlock_keystore(path, PASSWORD).address == Key(SECRET).address
    with pytest.raises(RequestError) as caught:
        unlock_keystore(path, "wrong horse")
    assert caught.value.code == "keystore_locked"
    assert "wrong horse" not in caught.value.message
    assert SECRET.hex() not in path.read_text()
    assert read_keystore_address(path) == Key(SECRET).address


def test_files_are_exchanged_with_other_tools(folder: Path) -> None:
    path = write(folder, Key(SECRET))
    assert bytes(Account.decrypt(path.read_text(), PASSWORD)) == SECRET
    theirs = folder / "theirs.json"
    theirs.write_text(json.dumps(Account.encrypt(SECRET, PASSWORD, iterations=2)))
    theirs.chmod(0o600)
    assert unlock_keystore(theirs, PASSWORD).address == Key(SECRET).address


def test_the_file_of_the_specification_opens() -> None:
    """The test vector for PBKDF2 of the Web3 Secret Storage definition."""
    salt = "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {"c": 262_144, "dklen": 32, "prf": "hmac-sha256", "salt": salt},
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    }
    opened = decrypt_secret({"Crypto": crypto, "version": 3}, "testpassword", Path("file"))
    assert opened.hex() == "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"


def test_scrypt_parameters_that_its_rfc_forbids_are_named() -> None:
    wrapped = encrypt_secret(SECRET, PASSWORD, Scrypt.LIGHT)
    wrapped["crypto"]["kdfparams"] |= {"n": 1 << 16, "r": 1, "p": 8}
    with pytest.raises(RequestError, match="n=65536 with r=1"):
        decrypt_secret(wrapped, PASSWORD, Path("file"))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("version",), 4),
        (("version",), "3"),
        (("crypto", "cipher"), "aes-256-ctr"),
        (("crypto", "ciphertext"), "aa" * 31),
        (("crypto", "ciphertext"), "not hex"),
        (("crypto", "cipherparams", "iv"), "aa" * 17),
        (("crypto", "kdf"), "md5"),
        (("crypto", "kdf"), "pbkdf2"),
        (("crypto", "kdfparams", "dklen"), 16),
        (("crypto", "kdfparams", "n"), 3),
        (("crypto", "kdfparams", "n"), 1 << 21),  # twice the memory that a file may ask for
        (("crypto", "kdfparams", "r"), 2_049),  # half a megabyte more than a file may ask for
        (("crypto", "kdfparams", "r"), 1 << 40),
        (("crypto", "kdfparams", "p"), 17),
        (("crypto", "kdfparams", "p"), -1),
        (("crypto", "kdfparams", "salt"), None),
    ],
)
def test_a_file_with_one_wrong_field_is_no_keystore(where: tuple[str, ...], value: object) -> None:
    wrapped = encrypt_secret(SECRET, PASSWORD, Scrypt.LIGHT)
    assert decrypt_secret(wrapped, PASSWORD, Path("file")) == SECRET
    inner = wrapped
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    with pytest.raises(RequestError, match="is not a version 3 keystore"):
        decrypt_secret(wrapped, PASSWORD, Path("file"))


@pytest.mark.parametrize("field", ["mac", "ciphertext"])
def test_a_changed_bit_does_not_open(field: str) -> None:
    wrapped = encrypt_secret(SECRET, PASSWORD, Scrypt.LIGHT)
    changed = bytearray.fromhex(wrapped["crypto"][field])
    changed[0] ^= 1
    wrapped["crypto"][field] = changed.hex()
    with pytest.raises(RequestError, match="the password does not open"):
        decrypt_secret(wrapped, PASSWORD, Path("file"))


def test_a_start_of_the_key_stream_without_its_leading_zeros_is_the_same() -> None:
    while True:  # one file in 256 begins with a zero byte
        theirs = Account.encrypt(SECRET, PASSWORD, kdf="pbkdf2", iterations=2)
        iv = theirs["crypto"]["cipherparams"]["iv"]
        if iv.startswith("00"):
            break
    assert decrypt_secret(theirs, PASSWORD, Path("file")) == SECRET
    theirs["crypto"]["cipherparams"]["iv"] = iv.removeprefix("00")
    assert decrypt_secret(theirs, PASSWORD, Path("file")) == SECRET


def test_the_named_strength_is_the_one_written(folder: Path) -> None:
    assert json.loads(write(folder).read_text())["crypto"]["kdfparams"]["n"] == 1 << 12
    assert Scrypt.STANDARD == 1 << 18
    assert create_keystore.__kwdefaults__["scrypt"] is Scrypt.STANDARD


def test_file_and_folder_are_private_and_whole(folder: Path) -> None:
    old = os.umask(0)
    try:
        path = write(folder)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [item.name for item in folder.iterdir()] == ["user.json"], "no draft is left"


def test_a_key_file_is_never_replaced(folder: Path) -> None:
    path = write(folder)
    before = path.read_bytes()
    with pytest.raises(RequestError, match="never replaced"):
        write(folder)
    assert path.read_bytes() == before
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(("target", "mode"), [("file", 0o640), ("file", 0o604), ("folder", 0o750)])
def test_what_others_may_read_is_refused_with_the_chmod(
    folder: Path, target: str, mode: int
) -> None:
    path = write(folder)
    loose = path if target == "file" else folder
    loose.chmod(mode)
    with pytest.raises(RequestError, match=f"chmod (6|7)00 {loose}") as caught:
        unlock_keystore(path, PASSWORD)
    assert caught.value.code == "keystore_permissions"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"version": 1}', b'{"version": 3}', b"\xff\xfe", b"3"]
)
def test_what_is_no_keystore_is_refused_as_such(folder: Path, content: bytes) -> None:
    path = write(folder)
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        unlock_keystore(path, PASSWORD)
    assert caught.value.code == "keystore_locked"


def test_an_empty_password_is_refused(folder: Path) -> None:
    with pytest.raises(RequestError, match="choose one"):
        create_keystore(folder / "user.json", "")
    assert not folder.exists()


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, b"1" * 31])
def test_impossible_secrets_are_refused_without_repeating_them(secret: bytes) -> None:
    with pytest.raises(RequestError, match="32 bytes"):
        Key(secret)


def test_password_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file\n")
    file.chmod(0o600)
    by_value = {"HANSE_PASSWORD": "from variable", "HANSE_PASSWORD_FILE": str(file)}
    assert get_password("user", environment=by_value) == "from variable"
    by_file = {"HANSE_PASSWORD_FILE": str(file)}
    assert get_password("user", environment=by_file) == "from file"
    file.chmod(0o644)
    with pytest.raises(RequestError, match="chmod 600"):
        get_password("user", environment=by_file)
    with pytest.raises(RequestError, match="No such file"):
        get_password("user", environment={"HANSE_PASSWORD_FILE": str(tmp_path / "none")})


def test_password_by_prompt_only_at_a_terminal() -> None:
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return "typed"

    assert get_password("user", environment={}, prompt=prompt, is_interactive=True) == "typed"
    with pytest.raises(RequestError, match="HANSE_PASSWORD_FILE"):
        get_password("user", environment={}, prompt=prompt, is_interactive=False)
    assert asked == ["Password for user: "]


def test_no_folder_on_the_way_to_a_key_is_open_to_others(tmp_path: Path) -> None:
    """Who can write to a folder above can put another in place of the one with the keys."""
    before = os.umask(0)
    try:
        create_keystore(tmp_path / "home" / "deep" / "keys" / "k.json", "p", scrypt=Scrypt.LIGHT)
    finally:
        os.umask(before)
    for folder in ("home", "home/deep", "home/deep/keys"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700
