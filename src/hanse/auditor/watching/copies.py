"""The copies that a buyer has at hand, and the thresholds that it judges them by.

An auditor needs the provider's own copy (or, to make it again, the master key that all copies are
made from); who gives it to whom is no matter of the protocol. Here they lie in one folder, each
with its description beside it. One model is held in memory at a time.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hanse.auditor.files import read_bytes, read_calibration
from hanse.auditor.opened_model import OpenedModel, open_model
from hanse.protocol.commitments.copies import (
    COPY_SUFFIX,
    DESCRIPTION_BYTES_MAX,
    decode_copy_description,
)
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.messages import Offer
from hanse.verification.audits.calibration import Calibration

COPIES_MAX = 1_000
"""Files of one folder: a description is read from each at every look."""


@dataclass(frozen=True)
class Means:
    """What one offer is audited with."""

    path: Path
    calibration: Calibration


class CopiesAtHand:
    """See the module. Its methods block; use it from one thread at a time."""

    def __init__(
        self, folder: Path, calibrations: Sequence[Path], *, runtime: str, threads: int
    ) -> None:
        """Read the calibrations.

        Raises:
            RequestError: `not_found`: the folder, or a calibration.
            VerificationError: a calibration does not hold.
        """
        if not folder.is_dir():
            raise RequestError("not_found", f"{folder} is no folder of copies")
        self._folder, self._runtime, self._threads = folder, runtime, threads
        self._calibrations = [read_calibration(path) for path in calibrations]
        self._opened: tuple[Means, OpenedModel] | None = None
        self._stack = ExitStack()

    def find(self, offer: Offer) -> Means | None:
        """The copy of an offer's provider, and thresholds for its model; None if there is none.

        Of several the one of the offered quantisation, then the newest.
        """
        found = []
        for told in sorted(self._folder.glob(f"*{COPY_SUFFIX}"))[:COPIES_MAX]:
            try:
                copy = decode_copy_description(read_bytes(told, DESCRIPTION_BYTES_MAX))
            except HanseError:
                continue  # not a description, or gone meanwhile
            if (copy.provider, copy.base_root) == (offer.provider, offer.manifest_root):
                rank = (copy.quantisation == offer.quantisation, copy.epoch)
                found.append((rank, told.with_name(told.name.removesuffix(COPY_SUFFIX))))
        for calibration in self._calibrations:
            if found and calibration.conditions.manifest_root == offer.manifest_root:
                return Means(max(found)[1], calibration)
        return None

    def open(self, means: Means) -> OpenedModel:
        """The model, loaded; the one before it is closed.

        Raises:
            RequestError: `configuration_invalid`, why it cannot be used.
        """
        if self._opened is None or self._opened[0] != means:
            self.close()
            model = self._stack.enter_context(
                open_model(
                    means.path,
                    self._runtime,
                    threads=self._threads,
                    context_tokens=means.calibration.conditions.context_tokens,
                )
            )
            self._opened = means, model
        return self._opened[1]

    def close(self) -> None:
        """Let go of the model's memory."""
        self._opened = None
        self._stack.close()
