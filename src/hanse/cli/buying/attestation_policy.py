"""The attestation policy of a home: which machines this user's requests may go to."""

from pathlib import Path
from typing import TYPE_CHECKING

from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.verification.attestation import Policy

POLICY_FILE = "attestation-policy.json"
"""In the home folder. Whoever buys reads it at the start: gateway, chat, match."""


def find_attestation_policy(home: Path) -> "Policy | None":
    """The home's policy; None if it has none, and then no offer of class `tee` is chosen.

    Raises:
        RequestError: `configuration_invalid`: a policy that cannot be read is not left out.
    """
    path = home / POLICY_FILE
    return read_attestation_policy(path) if path.exists() else None


def read_attestation_policy(path: Path) -> "Policy":
    """A policy from a file.

    Raises:
        RequestError: `configuration_invalid`, naming the file.
    """
    from hanse.verification.attestation import decode_policy

    try:
        return decode_policy(path.read_bytes())
    except OSError as error:
        text = f"{path}: {error.strerror}"
    except RequestError as error:
        text = f"{path}: {error.message}"
    raise RequestError("configuration_invalid", text)
