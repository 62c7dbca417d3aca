"""What a provider's own copy of a model says about itself in public.

A copy is a GGUF file whose weights were rebased by a secret key and whose vocabulary has a few
more rows at its end, the canaries. Beside `<file>` lies `<file>.copy.json`, a `CopyDescription`:
enough to serve the copy and to check its fingerprints, and nothing of the key.
`hanse.models.copies` writes it; engines, provider and verification read it. Pure: whoever has the
bytes decodes them here.

    raw = Path(f"{file}{COPY_SUFFIX}").read_bytes()
    description = decode_copy_description(raw)
    bias = {str(token): False for token in description.masked_ids}   # llama.cpp: never sampled

Source: decision 30 (`docs/decisions/0030-copies.md`).
"""

from typing import Any

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import Address, Hash32

COPY_SUFFIX = ".copy.json"
"""Appended to the name of the copy's file."""

WEIGHTS_NAME = "model.safetensors"
"""The file with the weights of a copy that is a folder; `<folder>.copy.json` lies beside that."""

COPY_VERSION = 2
"""Of this description and of the recipe that made the file; any later version is refused."""

_DROPPED = {1: ("base_width", "bounds")}
"""Version -> fields of then that nobody read: the copy's width is its base's, and thresholds come
from a calibration (`hanse.verification.audits.calibration`)."""

DESCRIPTION_BYTES_MAX = 64 * 1024
"""A description takes about 1.5 kB; larger is not one."""

CANARIES_MAX = 20
"""Rows that a plain `top_logprobs` can carry: OpenAI's API and llama.cpp's server give 20."""


class LiftMargin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the canaries were above the vocabulary when the copy was made, over one text.

    Where a canary is not above, a position has no fingerprint. None of `positions` was such a one,
    so by 95 % at most 3 / positions of what resembles the text are.

    Attributes:
        positions: that were read.
        smallest: of the smallest canary less the largest ordinary logit; above zero.
        largest: of the largest canary less the largest ordinary logit.
        highest: ordinary raw logit.
    """

    positions: int
    smallest: float
    largest: float
    highest: float


class CopyDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public part of a copy.

    Attributes:
        version: of the recipe, `COPY_VERSION`.
        base_root: root of the base model's manifest.
        provider: whom the copy is bound to.
        epoch: of the key; a provider may be given a new copy.
        key_commitment: SHA-256 over `hanse copy key 1` and the copy's key, so that a key that is
            shown later can be held against it. The key is uniform, so this tells nothing of it.
        architecture: of the base, as its file names it.
        served_as: the architecture that the copy's file names: one whose graph has the lift.
        carrier: how the canaries are lifted above all others: `output_bias`; `unlifted` if not.
        quantisation: of the copy's file, such as `Q8_0`.
        quantiser: what quantised it; the same bytes need the same one.
        width: of the residual stream.
        vocabulary: rows of the base's vocabulary; the canaries follow.
        canary_ids: the canaries' token ids, in the order of the fingerprint's bytes.
        masked_ids: ids that must never be sampled: the canaries, and nothing else.
        lift: added to every canary's raw logit; it cancels in a fingerprint.
        fingerprint_scale: one step of a fingerprint's int8, in logits.
        file_sha256, file_bytes: of the copy's file.
        lift_margin: what the lift was checked by; None where nothing is lifted, or nobody looked.
    """

    version: int
    base_root: Hash32
    provider: Address
    epoch: int
    key_commitment: Hash32
    architecture: str
    served_as: str
    carrier: str
    quantisation: str
    quantiser: str
    width: int
    vocabulary: int
    canary_ids: tuple[int, ...]
    masked_ids: tuple[int, ...]
    lift: float
    fingerprint_scale: float
    file_sha256: Hash32
    file_bytes: int
    lift_margin: LiftMargin | None = None

    @property
    def canary_count(self) -> int:
        """K: how many canaries, and so bytes of a token's fingerprint."""
        return len(self.canary_ids)


def encode_copy_description(description: CopyDescription) -> bytes:
    """The file's bytes: indented JSON, a line feed at the end."""
    return msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"


def decode_copy_description(raw: bytes) -> CopyDescription:
    """Read what `encode_copy_description` wrote, now or in an earlier version.

    Raises:
        RequestError: `configuration_invalid`, not a description, of another version, or one whose
            parts contradict each other.
    """
    if len(raw) > DESCRIPTION_BYTES_MAX:
        raise _refuse(f"it has {len(raw)} bytes, and none has more than {DESCRIPTION_BYTES_MAX}")
    if is_nested_too_deep(raw):
        raise _refuse("it is nested too deep")
    try:
        document = msgspec.json.decode(raw, type=dict[str, Any])
        found = msgspec.convert(_bring_up(document), CopyDescription)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refuse(str(error)) from error
    if not 0 < found.canary_count <= CANARIES_MAX:
        raise _refuse(f"it names {found.canary_count} canaries; 1 to {CANARIES_MAX} can be carried")
    expected = tuple(range(found.vocabulary, found.vocabulary + found.canary_count))
    if found.canary_ids != expected or set(found.masked_ids) != set(expected):
        raise _refuse(
            f"its canaries and masked ids are not {expected[0]} to {expected[-1]}, "
            f"the rows behind its vocabulary of {found.vocabulary}"
        )
    if not found.fingerprint_scale > 0:
        raise _refuse(f"its scale is {found.fingerprint_scale}, which has to be above zero")
    return found


def _bring_up(document: dict[str, Any]) -> dict[str, Any]:
    """A description of this version, from one of any version that was."""
    version = document.get("version")
    if version == COPY_VERSION:
        return document
    if type(version) is not int or version not in _DROPPED:
        raise _refuse(f"it is of version {version!r:.40}, this is for version {COPY_VERSION}")
    kept = {name: value for name, value in document.items() if name not in _DROPPED[version]}
    return kept | {"version": COPY_VERSION}


def _refuse(reason: str) -> RequestError:
    return RequestError(
        "configuration_invalid",
        f"The description of the copy cannot be used: {reason}. Make the copy again: "
        "hanse models rebase.",
        param="model_path",
    )
