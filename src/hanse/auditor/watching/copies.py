"""The copies that a buyer has at hand, and the thresholds that it judges them by.

An auditor needs the provider's own copy, or the plain model and the master key that all copies are
made from; who gives it to whom is no matter of the protocol. Copies lie in one folder, each with
its description beside it; of keyed ones only the descriptions are needed. One model is held in
memory at a time.

An offer names model and quantisation, and not of which epoch its copy is. So what is at hand is
held to the offered quantisation, under which another copy would make an honest provider look like a
cheat, and of several epochs all are named: a cheat is one by each of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hanse.auditor.files import read_calibration
from hanse.auditor.model_types import UNKNOWN, to_type
from hanse.auditor.opened_model import Keyed, OpenedModel, open_model, read_keyed
from hanse.protocol.commitments.copies import (
    COPY_SUFFIX,
    DESCRIPTION_BYTES_MAX,
    CopyDescription,
    decode_copy_description,
)
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.messages import Offer
from hanse.store.files import read_file
from hanse.verification.audits.calibration import Calibration

COPIES_MAX = 1_000
"""Files of one folder: a description is read from each at every look."""

EPOCHS_MAX = 3
"""Copies of one provider that an answer is held against, the newest."""


@dataclass(frozen=True)
class Means:
    """What one offer is audited with.

    Attributes:
        path: the copy; of a keyed one the plain model.
        calibration: its thresholds.
        keyed: the copy's description and key, where the plain model is run.
    """

    path: Path
    calibration: Calibration
    keyed: Keyed | None = None


class CopiesAtHand:
    """See the module. Its methods block; use it from one thread at a time."""

    def __init__(
        self,
        folder: Path | None,
        calibrations: Sequence[Path],
        *,
        runtime: str,
        threads: int,
        model: Path | None = None,
        keyed: Sequence[Keyed] = (),
    ) -> None:
        """Read the calibrations, and check the keys.

        Args:
            folder: of copies.
            calibrations: thresholds.
            runtime: what runs the models.
            threads: processor threads.
            model: one copy more; with `keyed` the plain model of which those were made.
            keyed: copies by their keys.

        Raises:
            RequestError: `not_found`: the folder, or a calibration; `usage`, a key is not its
                copy's, or the runtime runs no plain model.
            VerificationError: a calibration does not hold.
        """
        if folder is not None and not folder.is_dir():
            raise RequestError("not_found", f"{folder} is no folder of copies")
        if keyed and runtime != "torch":
            raise RequestError(
                "usage", "plain weights with a copy's key run in torch: --runtime torch"
            )
        self._folder, self._runtime, self._threads = folder, runtime, threads
        self._model = None if keyed else model
        self._keyed = [(read_keyed(one)[0], model, one) for one in keyed if model is not None]
        self._calibrations = [read_calibration(path) for path in calibrations]
        self._opened: tuple[Means, OpenedModel] | None = None
        self._stack = ExitStack()

    def get_means(self, offer: Offer) -> tuple[Means, ...]:
        """The copies of an offer's provider, newest first, and thresholds for them.

        Raises:
            RequestError: `not_found`, and what is missing.
        """
        own = [
            one
            for one in self._list()
            if (one[0].provider, one[0].base_root) == (offer.provider, offer.manifest_root)
        ]
        if not own:
            raise RequestError("not_found", "there is no copy of its provider at hand")
        wanted = to_type(offer.quantisation)
        fitting = [one for one in own if wanted in (UNKNOWN, to_type(one[0].quantisation))]
        if not fitting:
            held = ", ".join(sorted({copy.quantisation for copy, _, _ in own}))
            raise RequestError(
                "not_found",
                f"its copies at hand are {held}, offered was {offer.quantisation}: another "
                "quantisation would make an honest answer look like a cheat",
            )
        fitting.sort(key=lambda one: (-one[0].epoch, one[2] is not None))
        return tuple(
            Means(path, self._get_calibration(offer, copy), keyed)
            for copy, path, keyed in fitting[:EPOCHS_MAX]
        )

    def _get_calibration(self, offer: Offer, copy: CopyDescription) -> Calibration:
        """Thresholds for a copy; of several those of the offered engine.

        Raises:
            RequestError: `not_found`.
        """
        found = [
            one
            for one in self._calibrations
            if one.conditions.manifest_root == offer.manifest_root
            and to_type(one.conditions.quantisation) in (UNKNOWN, to_type(copy.quantisation))
        ]
        if not found:
            raise RequestError(
                "not_found", f"there is no calibration for {copy.quantisation} of its model"
            )
        return max(found, key=lambda one: one.conditions.served_by.split(" ")[0] == offer.engine)

    def _list(self) -> Iterator[tuple[CopyDescription, Path, Keyed | None]]:
        """Description, file to run, and key, of everything that is there now."""
        yield from ((copy, path, one) for copy, path, one in self._keyed)
        told = [] if self._folder is None else sorted(self._folder.glob(f"*{COPY_SUFFIX}"))
        if self._model is not None:
            told.append(self._model.with_name(self._model.name + COPY_SUFFIX))
        for path in told[-COPIES_MAX:]:
            try:
                copy = decode_copy_description(read_file(path, DESCRIPTION_BYTES_MAX))
            except HanseError:
                continue  # not a description, or gone meanwhile
            file = path.with_name(path.name.removesuffix(COPY_SUFFIX))
            if file.exists():
                yield copy, file, None

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
                    keyed=means.keyed,
                )
            )
            self._opened = means, model
        return self._opened[1]

    def close(self) -> None:
        """Let go of the model's memory."""
        self._opened = None
        self._stack.close()
