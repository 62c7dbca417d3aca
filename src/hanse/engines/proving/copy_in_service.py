"""The copy that an engine serves, and what that changes in the requests to its server.

    copy = find_copy(path)                  # None: the file is a plain model
    copy.refuse_canaries(body)              # a caller cannot put a canary into a prompt
    body["logit_bias"] = copy.mask(body.get("logit_bias"), never)
    ledger = Ledger(copy.description)       # of one answer

Several answers to one request (`n`) are committed to in the order in which their tokens came; no
audit covers that. Embeddings a copy does not serve at all: its vectors lie in its own secret basis,
so those of two providers could not be compared.
"""

from pathlib import Path
from typing import Any

from hanse.protocol.commitments.copies import (
    COPY_SUFFIX,
    DESCRIPTION_BYTES_MAX,
    WEIGHTS_NAME,
    CopyDescription,
    decode_copy_description,
)
from hanse.protocol.commitments.fingerprints import CANARIES
from hanse.protocol.commitments.seeds import SEED_MAX
from hanse.protocol.errors import RequestError

TOPS = 20
"""Most likely tokens that are asked for: the canaries, and room for a few that get between them."""

LIFT_TOLD_MAX = 60.0
"""Up to this lift a server's softmax in single precision, whose largest terms the canaries are,
still holds the ordinary tokens: its smallest normal number is the exponential of -87, and they
differ by 20 or 30 among themselves. Under a copy with a higher lift callers get no logprobs.
"""


class CopyInService:
    """A copy's description, ready for use at every request."""

    def __init__(self, description: CopyDescription) -> None:
        """Take a description that was decoded.

        Raises:
            RequestError: it has another number of canaries than a fingerprint has bytes.
        """
        if description.canary_count != CANARIES:
            raise RequestError(
                "configuration_invalid",
                f"The copy has {description.canary_count} canaries, but a fingerprint has "
                f"{CANARIES} bytes; make the copy again: hanse models rebase.",
                param="model_path",
            )
        self.description = description
        self.canaries = frozenset(description.masked_ids)

    @property
    def tells_logprobs(self) -> bool:
        """Whether what a server tells of ordinary tokens is any good: see LIFT_TOLD_MAX."""
        return self.description.lift <= LIFT_TOLD_MAX

    @property
    def is_told(self) -> bool:
        """Whether the canaries are lifted, so that a server's top logprobs hold them.

        A copy whose graph has no room for a lift is served with its canaries masked, and without a
        proof: its fingerprints take a binding.
        """
        return self.description.lift > 0

    def mask(self, asked: dict[str, Any] | None, never: Any) -> dict[str, Any]:
        """A caller's `logit_bias` in which the canaries, and only they, have the value `never`."""
        kept = {
            token: bias for token, bias in (asked or {}).items() if int(token) not in self.canaries
        }
        return kept | {str(token): never for token in self.description.masked_ids}

    def refuse_canaries(self, body: dict[str, Any]) -> None:
        """Refuse a checked body whose prompt, as token numbers, holds a canary.

        Raises:
            RequestError: `invalid_request`.
        """
        prompt = body.get("prompt")
        if isinstance(prompt, list) and not self.canaries.isdisjoint(prompt):
            limit = self.description.vocabulary - 1
            raise RequestError(
                "invalid_request",
                f"prompt holds a token number above {limit}, the model's last.",
                param="prompt",
            )


def set_seed(body: dict[str, Any], seed: int) -> None:
    """Give a checked body this seed unless it names one; one that means chance is none."""
    asked = body.get("seed")
    if asked is None or asked % 2**32 > SEED_MAX:
        body["seed"] = seed


def find_copy(path: Path) -> CopyInService | None:
    """The copy that this model file, or folder, is; None without a description beside it.

    Raises:
        RequestError: `configuration_invalid`, the description cannot be used, or is of a file of
            another size.
    """
    description_path = path.with_name(path.name + COPY_SUFFIX)
    if not description_path.exists():
        return None
    copy = read_copy(description_path)
    description = copy.description
    size_bytes = (path / WEIGHTS_NAME if path.is_dir() else path).stat().st_size
    if size_bytes != description.file_bytes:
        raise RequestError(
            "configuration_invalid",
            f"{path.name} has {size_bytes} bytes, but its description is of a file of "
            f"{description.file_bytes}; put the two that belong together side by side.",
            param="model_path",
        )
    return copy


def read_copy(path: Path) -> CopyInService:
    """The copy that this file describes, wherever its weights are.

    Raises:
        RequestError: `configuration_invalid`, it cannot be used.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(DESCRIPTION_BYTES_MAX + 1)
    except OSError as error:
        raise RequestError(
            "configuration_invalid",
            f"{path.name} cannot be read: {error.strerror}.",
            param="model_path",
        ) from error
    return CopyInService(decode_copy_description(raw))
