"""Looks at the money once in a while, and makes the next move."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hanse.chain import ChainError
from hanse.market import OfferIndex
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.signatures import Address
from hanse.sdk.account import Account
from hanse.sdk.chain_view import IndexedChain
from hanse.sdk.purchase.funding import Funding
from hanse.sdk.upkeep.moves import MoveBook, StoredMove, open_move_book
from hanse.sdk.upkeep.rules import Facts, Kept, Move, UpkeepSettings, plan
from hanse.settlement.books.voucher_book import VoucherBook
from hanse.store import Database

FAILED_PAUSE_S = 60.0
"""After a transaction that was refused: what refused it passes in minutes, or not at all."""

_log = logging.getLogger(__name__)

Wish = tuple[str, str]
"""Type of service and model."""


@dataclass(frozen=True)
class KeeperParts:
    """What a keeper works with.

    Attributes:
        account: moves the money; it has a wallet key.
        chain, funding, offers, book: what is there, and who sells.
        moves: what was decided.
        is_out: whether a provider is down, absent or dishonest, and not worth funding now.
        clock: unix seconds.
    """

    account: Account
    chain: IndexedChain
    funding: Funding
    offers: OfferIndex
    book: VoucherBook
    moves: MoveBook
    is_out: Callable[[Address], bool]
    clock: Callable[[], float]


class Keeper:
    """Keeps the sub-accounts of one user and signer. Open it with `open_keeper`."""

    def __init__(self, parts: KeeperParts, settings: UpkeepSettings) -> None:
        self._parts = parts
        self._settings = settings
        self._turn = asyncio.Lock()
        self._wishes: dict[Wish, float] = {}
        self._seen: dict[Address, tuple[int, int]] = {}
        self._used_at: dict[Address, float] = {}
        self._active_at = parts.clock()
        self._pause_until = 0.0

    async def fund_for(self, service_type: str, model: str) -> bool:
        """A model was asked for in vain: fund its providers, and wait until that is confirmed.

        Returns:
            Whether it is worth asking again.
        """
        now_s = self._parts.clock()
        self._wishes[service_type, model] = self._active_at = now_s
        if self._pause_until > now_s:
            return False
        work = asyncio.create_task(self._look_for(service_type, model))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.wait_s):
                return await asyncio.shield(work)
        return False

    async def look(self) -> Move | None:
        """Make the next move, if there is one, and wait until it is final.

        Raises:
            TransientError: chain or store are away; an open move is gone on with by the next look.
        """
        async with self._turn:
            stored = await self._parts.moves.find_open()
            if stored is None:
                move = plan(await self._read_facts(), self._settings)
                if move is None:
                    return None
                stored = await self._parts.moves.decide(move, self._parts.clock())
            await self._make(stored)
            return stored.move

    async def run(self) -> None:
        """Look for ever."""
        while True:
            rest_s = self._settings.look_s
            if self._pause_until <= self._parts.clock():
                try:
                    if await self.look() is not None:
                        rest_s = 0.0  # the next move may be due already
                except HanseError as error:
                    _log.warning("upkeep of the sub-accounts waits: %s", error.message)
            await asyncio.sleep(rest_s)

    async def _look_for(self, service_type: str, model: str) -> bool:
        providers = self._list_wanted([(service_type, model)])
        before = {provider: self._parts.funding.find_available(provider) for provider in providers}
        try:
            while (move := await self.look()) is not None:
                if any(provider in before for provider in move.funds):
                    break
        except HanseError as error:
            _log.warning("no sub-account for %s: %s", model, error.message)
        return any(
            (self._parts.funding.find_available(provider) or 0) > (available or 0)
            for provider, available in before.items()
        )

    async def _make(self, stored: StoredMove) -> None:
        _log.info("upkeep: %s", stored.move.kind)
        try:
            await self._submit(stored.move, stored.key)
        except (ChainError, RequestError) as error:
            _log.warning("upkeep: %s failed: %s", stored.move.kind, error.message)
            self._pause_until = self._parts.clock() + FAILED_PAUSE_S
            await self._parts.moves.end(stored.number, "failed", error.message)
        else:
            self._active_at = self._parts.clock()
            await self._parts.moves.end(stored.number, "done")

    async def _submit(self, move: Move, key: str) -> None:
        account = self._parts.account
        provider = next(iter(move.funds), "")
        if move.kind == "fund":
            await account.open(move.amount, move.funds, key=key)
        elif move.kind == "refund":
            await account.request_refund(provider, move.amount, key=key)
        elif move.kind == "cancel":
            await account.cancel_refund(provider, key=key)
        elif move.kind == "claim":
            await account.claim_refund(provider, key=key)
        elif move.kind == "withdraw":
            await account.withdraw(move.amount, key=key)
        else:
            await account.send(self._settings.return_to, move.amount, key=key)

    async def _read_facts(self) -> Facts:
        parts, now_s = self._parts, self._parts.clock()
        await self._note_use(now_s)
        funds = {
            provider: of
            for provider, signer, of in parts.chain.list_funds()
            if signer == parts.account.signer
        }
        waits = any(of.pending_refund for of in funds.values())
        chain_s = await parts.account.read_clock() if waits else 0
        kept = {
            provider: Kept(
                parts.funding.find_available(provider) or 0,
                of.pending_refund,
                bool(of.pending_refund) and of.refund_unlock_s <= chain_s,
                now_s - self._used_at.setdefault(provider, now_s),
            )
            for provider, of in funds.items()
        }
        wishes = self._list_wishes(now_s)
        always = [wish for wish in wishes if wish[1] in self._settings.models]
        wanted, kept_always = self._list_wanted(wishes), self._list_wanted(always)
        return Facts(
            wanted,
            kept,
            parts.chain.get_account(),
            await parts.account.read_wallet(),
            await parts.moves.sum_funded(now_s),
            now_s - self._active_at,
            frozenset(wanted).difference(kept_always) if self._settings.models else frozenset(),
        )

    async def _note_use(self, now_s: float) -> None:
        """A sub-account is in use when its book has changed since the last look."""
        for one in await self._parts.book.list_sub_accounts():
            state = one.book.acknowledged, one.book.in_flight
            if one.key.signer != self._parts.account.signer:
                continue
            if self._seen.get(one.key.provider) != state or one.book.in_flight:
                self._seen[one.key.provider] = state
                self._used_at[one.key.provider] = self._active_at = now_s

    def _list_wishes(self, now_s: float) -> list[Wish]:
        idle_s = self._settings.idle_s
        if idle_s:
            self._renew_wishes(now_s)
            self._wishes = {wish: at for wish, at in self._wishes.items() if now_s - at < idle_s}
        always = [
            (listed.offer.service_type, listed.offer.model)
            for listed in self._parts.offers.list_all()
            if listed.offer.model in self._settings.models
        ]
        return list(dict.fromkeys([*always, *self._wishes]))

    def _renew_wishes(self, now_s: float) -> None:
        """A model is wanted for as long as one of its providers is used."""
        for wish in self._wishes:
            used = [self._used_at.get(provider, 0.0) for provider in self._list_wanted([wish])]
            self._wishes[wish] = max([self._wishes[wish], *used])

    def _list_wanted(self, wishes: Iterable[Wish]) -> tuple[Address, ...]:
        """The cheapest providers of each model that is wished for, without those that are out.

        Price alone would let whoever asks for least take the money of all models.
        """
        wanted: dict[Address, None] = {}
        for service_type, model in wishes:
            offers = sorted(
                self._parts.offers.list_for(service_type, model),
                key=lambda one: (
                    one.offer.prices.input_per_mtok + one.offer.prices.output_per_mtok,
                    one.provider,
                ),
            )
            never = self._settings.excluded
            cheapest = dict.fromkeys(
                one.provider
                for one in offers
                if one.provider not in never and not self._parts.is_out(one.provider)
            )
            wanted |= dict.fromkeys(list(cheapest)[: self._settings.providers_max])
        return tuple(wanted)


async def open_keeper(
    database: Database,
    account: Account,
    chain: IndexedChain,
    funding: Funding,
    offers: OfferIndex,
    book: VoucherBook,
    is_out: Callable[[Address], bool],
    clock: Callable[[], float],
    settings: UpkeepSettings,
) -> Keeper:
    """The keeper of this database's moves.

    Raises:
        RequestError: `configuration_invalid` if the account has no key to send with.
    """
    if account.outbox is None:
        raise RequestError(
            "configuration_invalid", "sub-accounts are kept by the wallet's key, and none is here"
        )
    moves = await open_move_book(database)
    parts = KeeperParts(account, chain, funding, offers, book, moves, is_out, clock)
    return Keeper(parts, settings)
