"""Who may submit to a recorder, and how much: providers and sub-accounts that the chain knows.

A signature costs nothing, so a signature alone opens nothing. A provider's submission must be
signed by the receipt key that Registry shows; the sub-accounts that either side names must exist in
Escrow. Both are read at the confirmed block, and remembered, so a known party costs no read; reads
for unknown ones are bounded over all callers, and so are the entries of each party.

Those reads are bounded in four kinds apart, so that a stranger's flood uses up its own: keys of any
name, keys of providers that are known or have a known sub-account, sub-accounts that a signer
names, sub-accounts that a verified provider names. One provider's key is read once in `KEY_ASK_S`.

Source: `docs/records.md`, section "Who may submit".
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hanse.chain.escrow import Escrow
from hanse.chain.registry import Registry
from hanse.chain.rpc import Rpc
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.records import Side, SignedSubmission
from hanse.protocol.signatures import ZERO_ADDRESS, Address
from hanse.recorder.settings import RecorderLimits

REMEMBERED_MAX = 200_000
"""Sub-accounts, keys and rates kept in memory, about 400 bytes each; the oldest are asked again."""

KEY_S = 60.0
"""A provider's receipt key is asked again after this, since it may change; sub-accounts stay."""

KEY_ASK_S = 2.0
"""Between reads of one provider's key: bad signatures in its name bring its new key, no flood."""

SubAccountName = tuple[Address, Address, Address]
KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class TokenBucket:
    """A rate with a burst; `take` says whether there is enough, and takes it."""

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst, self._left, self._at = per_s, burst, burst, now

    def take(self, count: float, now: float) -> bool:
        """Take `count` if there are so many; a count above the burst waits for a full bucket."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < min(count, self._burst):
            return False
        self._left -= count
        return True


class ChainParties:
    """What the chain says of parties, at the confirmed block."""

    def __init__(self, rpc: Rpc, registry: Registry, escrow: Escrow, confirmations: int) -> None:
        self._rpc, self._registry, self._escrow = rpc, registry, escrow
        self._confirmations = confirmations

    async def fetch_receipt_key(self, provider: Address) -> Address:
        """The provider's receipt key; the zero address if it is none."""
        block = await self._fetch_block()
        return (await self._registry.read_provider(provider, block=block)).receipt_key

    async def fetch_exists(self, name: SubAccountName) -> bool:
        """Whether a sub-account was ever funded."""
        block = await self._fetch_block()
        found = await self._escrow.read_sub_account(*name, block=block)
        return found.balance > 0 or found.claimed > 0 or found.sequence > 0

    async def _fetch_block(self) -> int:
        return max(0, (await self._rpc.fetch_head()).number - self._confirmations)


class Parties:
    """Decides who may submit. `fetch_` functions are those of `ChainParties`, or a test's."""

    def __init__(
        self,
        fetch_receipt_key: Callable[[Address], Awaitable[Address]],
        fetch_exists: Callable[[SubAccountName], Awaitable[bool]],
        limits: RecorderLimits,
        monotonic: Callable[[], float],
    ) -> None:
        self._fetch_receipt_key, self._fetch_exists = fetch_receipt_key, fetch_exists
        self._limits, self._monotonic = limits, monotonic
        self._key_lookups, self._known_key_lookups = self._bucket(), self._bucket()
        self._account_lookups = {side: self._bucket() for side in Side}
        self._keys: OrderedDict[Address, tuple[Address, float]] = OrderedDict()
        self._asked: OrderedDict[Address, float] = OrderedDict()
        self._funded: OrderedDict[Address, None] = OrderedDict()
        self._known: OrderedDict[SubAccountName, None] = OrderedDict()
        self._rates: OrderedDict[tuple[Side, Address], TokenBucket] = OrderedDict()

    async def verify(self, signed: SignedSubmission, signed_by: Address) -> None:
        """Check that the party may submit these entries; `signed_by` is who signed them.

        Raises:
            RequestError: `signature_invalid` if the provider's receipt key is another,
                `sub_account_unknown` if Escrow has no such sub-account.
            TransientError: `rate_limited`, `overloaded`, `chain_unavailable`.
        """
        submission = signed.submission
        if submission.side is Side.PROVIDER:
            await self._verify_receipt_key(signed.party, signed_by)
        for name in {entry.key[:3] for entry in submission.entries}:
            await self._verify_exists(name, submission.side)
        self._spend(submission.side, signed.party, len(submission.entries))

    async def _verify_receipt_key(self, provider: Address, signed_by: Address) -> None:
        key, until = self._keys.get(provider, (ZERO_ADDRESS, 0.0))
        now = self._monotonic()
        is_known = key != ZERO_ADDRESS or provider in self._funded
        lookups = self._known_key_lookups if is_known else self._key_lookups
        if key != signed_by:
            if now >= self._asked.get(provider, -math.inf) + KEY_ASK_S:
                self._check_lookups(lookups)
                key = await self._ask_key(provider, now)
        elif until < now and lookups.take(1, now):
            # Else strangers that use the reads up would shut out whoever is known.
            key = await self._ask_key(provider, now)
        if key != signed_by:
            raise RequestError(
                "signature_invalid",
                f"the submission is signed by {signed_by}, the receipt key of {provider} is {key}",
            )

    async def _ask_key(self, provider: Address, now: float) -> Address:
        _remember(self._asked, provider, now)
        key = await self._fetch_receipt_key(provider)
        _remember(self._keys, provider, (key, now + KEY_S))
        return key

    async def _verify_exists(self, name: SubAccountName, side: Side) -> None:
        if name in self._known:
            self._known.move_to_end(name)
            return
        self._check_lookups(self._account_lookups[side])
        if not await self._fetch_exists(name):
            raise RequestError(
                "sub_account_unknown",
                f"Escrow has no sub-account of user {name[0]}, provider {name[1]}, signer "
                f"{name[2]} at the confirmed block: fund it, or submit again in a moment",
            )
        _remember(self._known, name, None)
        _remember(self._funded, name[1], None)

    def _bucket(self) -> TokenBucket:
        limits = self._limits
        return TokenBucket(limits.lookups_per_s, limits.lookups_burst, self._monotonic())

    def _check_lookups(self, lookups: TokenBucket) -> None:
        if not lookups.take(1, self._monotonic()):
            raise TransientError(
                "overloaded", "too many unknown parties at once", retry_after_s=2.0
            )

    def _spend(self, side: Side, party: Address, count: int) -> None:
        now, limits = self._monotonic(), self._limits
        bucket = self._rates.get((side, party))
        if bucket is None:
            bucket = TokenBucket(limits.entries_per_s, limits.entries_burst, now)
        _remember(self._rates, (side, party), bucket)
        if not bucket.take(1 + count, now):
            raise TransientError(
                "rate_limited",
                f"{party} submits more than {limits.entries_per_s:g} entries a second",
                retry_after_s=5.0,
            )


class Callers:
    """What is asked without a signature, by the network address that it comes from.

    Behind a proxy all are one caller: the proxy then has to tell them apart, or the limit is for
    all of them together.
    """

    def __init__(self, limits: RecorderLimits, monotonic: Callable[[], float]) -> None:
        self._limits, self._monotonic = limits, monotonic
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()

    def spend_proofs(self, client: tuple[str, int] | None, count: int) -> None:
        """Take `count` proofs of a caller's rate.

        Raises:
            TransientError: `rate_limited`.
        """
        now, limits = self._monotonic(), self._limits
        name = _name_caller(client[0] if client else "")
        bucket = self._rates.get(name)
        if bucket is None:
            bucket = TokenBucket(limits.proofs_per_s, limits.proofs_burst, now)
        _remember(self._rates, name, bucket)
        if not bucket.take(1 + count, now):
            raise TransientError(
                "rate_limited",
                f"more than {limits.proofs_per_s:g} proofs a second are asked for from your "
                "address; ask for those that you lack, later",
                retry_after_s=5.0,
            )


def _name_caller(host: str) -> str:
    """Of an IPv6 address the first half, which is what one subscriber has at least."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return host


def _remember(kept: OrderedDict[KeyT, ValueT], key: KeyT, value: ValueT) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > REMEMBERED_MAX:
        kept.popitem(last=False)
