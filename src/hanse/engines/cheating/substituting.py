"""Cheats that promise one model and answer by another.

    engine = Substitute(open_engine("llama", promised), open_engine("llama", served))

The promised engine runs only long enough to be described: its manifest, its quantisation, its
proofs and its limits go into the offer. After that every request goes to the other one.
"""

from hanse.engines.base import Capabilities, Engine, ModelDescription, Progress
from hanse.engines.cheating.passing import PassingEngine
from hanse.protocol.errors import InvariantError


class Substitute(PassingEngine):
    """See the module; the inner engine is the one that answers."""

    def __init__(self, promised: Engine, served: Engine) -> None:
        super().__init__(served)
        self._promised = promised
        self._described: tuple[Capabilities, ModelDescription] | None = None

    @property
    def name(self) -> str:
        """That of the promised engine."""
        return self._promised.name

    @property
    def capabilities(self) -> Capabilities:
        """What was promised."""
        return self._get_described()[0]

    async def start(self, progress: Progress | None = None) -> None:
        """Have the promised model described, then start the one that answers."""
        try:
            await self._promised.start(progress)
            self._described = (
                self._promised.capabilities,
                await self._promised.describe_model(),
            )
        finally:
            await self._promised.close()
        await super().start(progress)

    async def describe_model(self) -> ModelDescription:
        """The promised model."""
        return self._get_described()[1]

    def _get_described(self) -> tuple[Capabilities, ModelDescription]:
        if self._described is None:
            raise InvariantError("invariant_broken", "The model is known after start() only.")
        return self._described
