"""What its owner has set for the whole gateway: limits, and ladders by name.

    configuration = await open_configuration(database)
    await configuration.change(lambda old: msgspec.structs.replace(old, limits=Limits(...)))
    configuration.budgets                       # from memory; `refresh` follows other processes

A ladder is what a request that meets a limit is led down, step by step, until one is within the
limits. A step is another model (a request of its own, which is paid), the local engine, or a canned
answer (both free, and so within every limit).
"""

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from hanse.gateway.budgets.limits import NO_LIMITS, Limits
from hanse.gateway.settings import CANNED_CHARS_MAX
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import NAME_CHARS_MAX
from hanse.store import Database, Transaction

LADDERS_MAX = 64
STEPS_MAX = 8
"""Each step of a ladder may ask the store once; nobody waits for more of them."""

_MIGRATIONS = (
    """
    CREATE TABLE gateway_budgets (
        one INTEGER PRIMARY KEY,
        revision INTEGER NOT NULL,
        document TEXT NOT NULL
    );
    INSERT INTO gateway_budgets (one, revision, document) VALUES (1, 0, '{}')
    """,
)


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a ladder; exactly one of its fields is set."""

    model: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    local: bool = False
    canned: Annotated[str, Meta(max_length=CANNED_CHARS_MAX)] = ""

    def __post_init__(self) -> None:
        """Refuse a step that is none, or two."""
        if bool(self.model) + self.local + bool(self.canned) != 1:
            raise ValueError("a step is one of model, local and canned")

    @property
    def name(self) -> str:
        """How an answer's header names it."""
        return self.model or ("local" if self.local else "canned")


class GatewayBudgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The settings of one gateway.

    Attributes:
        limits: of the whole gateway, all keys together.
        ladders: steps by the ladder's name, first the first.
    """

    limits: Limits = NO_LIMITS
    ladders: dict[str, Annotated[tuple[Step, ...], Meta(max_length=STEPS_MAX)]] = {}

    def to_document(self) -> dict[str, object]:
        """JSON-ready."""
        return {"limits": self.limits.to_document(), "ladders": msgspec.to_builtins(self.ladders)}


class Configuration:
    """Open it with `open_configuration`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revision = -1
        self.budgets = GatewayBudgets()

    @property
    def database(self) -> Database:
        """Where the limits, and what is taken of them, are kept."""
        return self._database

    async def refresh(self) -> None:
        """Take in what another process changed."""
        revision, document = await self._database.read(_read)
        if revision != self._revision:
            self.budgets = msgspec.json.decode(document, type=GatewayBudgets)
            self._revision = revision

    async def change(self, change: Callable[[GatewayBudgets], GatewayBudgets]) -> GatewayBudgets:
        """Set something; running gateways follow within a second."""

        def write(tx: Transaction) -> GatewayBudgets:
            after = change(msgspec.json.decode(_read(tx)[1], type=GatewayBudgets))
            if len(after.ladders) > LADDERS_MAX:
                raise RequestError("usage", f"{len(after.ladders)} ladders, at most {LADDERS_MAX}")
            tx.execute(
                "UPDATE gateway_budgets SET revision = revision + 1, document = ? WHERE one = 1",
                (msgspec.json.encode(after).decode(),),
            )
            return after

        after = await self._database.write(write)
        await self.refresh()
        return after


async def open_configuration(database: Database) -> Configuration:
    """The settings of this database; its table is made if it is not there."""
    await database.migrate("gateway_budgets", _MIGRATIONS)
    configuration = Configuration(database)
    await configuration.refresh()
    return configuration


def parse_step(text: str) -> Step:
    """A step as the command line writes it: `model=NAME`, `local`, `canned=TEXT`.

    Raises:
        RequestError: `usage`.
    """
    kind, _, value = text.partition("=")
    try:
        if kind == "local" and not value:
            return Step(local=True)
        if kind in ("model", "canned") and value:
            return msgspec.convert({kind: value}, Step)
    except msgspec.ValidationError as error:
        raise RequestError("usage", f"{text:.80}: {error}") from None
    raise RequestError("usage", f"{text[:80]!r} is not model=NAME, local or canned=TEXT")


def _read(tx: Transaction) -> tuple[int, str]:
    row = tx.find_one("SELECT revision, document FROM gateway_budgets WHERE one = 1")
    assert row is not None  # made with the table
    return int(row[0]), str(row[1])
