"""The board: every offer with all that is known of it, kept ready for the choice.

    board = Board(offers, health, measured, presence, clock, region="eu")
    board.keep_funded(providers)            who has a sub-account; only they can be asked
    group = board.find_group("chat", model)

Each service is a row; its features follow what heartbeats and measurements say. Rows of one model
and type of service are a group, in trees that are searched for the best. Who cannot be asked now
(no sub-account, left alone, out, a machine of class `tee` that is not verified) is on the board but
in no tree, and comes back by the event or at the time that ends it.
"""

import heapq
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from hanse.market.attested import AttestedBook
from hanse.market.health import FORGET_S, HealthBook
from hanse.market.measured import MeasuredBook, ServiceKey
from hanse.market.offers import ListedOffer, OfferIndex
from hanse.market.presence import PresenceBook
from hanse.market.scoring import (
    COLD_S,
    FIRST_TOKEN_S_USUAL,
    TOKEN_S_USUAL,
    Features,
    UsualPrices,
    get_usual_prices,
)
from hanse.market.tree import RankTree
from hanse.protocol.signatures import Address
from hanse.protocol.wire import VERIFIABILITIES

CHANGE_MIN = 0.05
"""A feature that changed by less, as a part of it, changes nothing: an order of nearly equal offers
that turns with every answer helps nobody, and each change takes some microseconds."""

_UNKNOWN = (FIRST_TOKEN_S_USUAL, TOKEN_S_USUAL)

LABELS_MAX = 31
"""Regions, and quantisations, with a bit of their own; further ones share the last."""


@dataclass(slots=True, eq=False)
class Row:
    """One service on the board.

    Attributes:
        listed: its offer.
        service: provider and number of the service.
        key: orders rows of equal score: provider, then service.
        features: as they count now; the sixth are the steps below the strongest check.
        mask: bits of its region and quantisation.
        leaf: where it stands in its tree; None while it is in none.
        tree: in which it stands, or last stood.
        awaits_trial: whether its group's `fresh` has it.
    """

    listed: ListedOffer
    service: ServiceKey
    key: str
    features: Features
    mask: int = 1
    leaf: Any = None
    tree: RankTree | None = None
    awaits_trial: bool = False


@dataclass(slots=True)
class Group:
    """The rows of one model and type of service.

    Rows of one kind of check and place stand in a tree together, apart those of which nothing but
    their offer is known: these differ in price alone. What is one for a whole tree is bounded well.
    """

    rows: dict[ServiceKey, Row] = field(default_factory=dict)
    trees: dict[tuple[int, int, bool], RankTree] = field(default_factory=dict)
    usual: UsualPrices = field(default_factory=UsualPrices)
    fresh: list[Row] = field(default_factory=list)  # also some that are not any more
    regions: dict[str, int] = field(default_factory=dict)
    quantisations: dict[str, int] = field(default_factory=dict)
    masks: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Put a row into its tree."""
        row.tree = self._get_tree(row)
        row.tree.add(row)
        row.tree.mend()

    def remove(self, row: Row) -> None:
        """Take a row out of its tree."""
        assert row.tree is not None  # rows with a leaf have one
        row.tree.remove(row)

    def move(self, row: Row) -> None:
        """Take notice of a row's new features."""
        if row.tree is self._get_tree(row):
            row.tree.move(row)
            row.tree.mend()
        else:
            self.remove(row)
            self.add(row)

    def build(self, rows: Iterable[Row]) -> None:
        """Hold exactly these in trees."""
        of_tree: dict[int, list[Row]] = {}
        for row in rows:
            row.tree = self._get_tree(row)
            of_tree.setdefault(id(row.tree), []).append(row)
        for tree in self.trees.values():
            tree.rebuild(of_tree.get(id(tree), ()))

    @property
    def is_worn(self) -> bool:
        """Whether building the trees anew pays."""
        return any(tree.is_worn for tree in self.trees.values())

    def _get_tree(self, row: Row) -> RankTree:
        features = row.features
        name = (features[5], features[6], features[2:4] == _UNKNOWN)
        tree = self.trees.get(name)
        if tree is None:
            tree = self.trees[name] = RankTree(name[0], is_one_speed=name[2])
        return tree

    def get_masks(self, region: str, quantisation: str) -> tuple[int, int] | None:
        """Bits of the regions and quantisations that are meant; None if none is asked for."""
        if not region and not quantisation:
            return None
        wanted = (region, quantisation)
        if wanted not in self.masks:
            every = (1 << LABELS_MAX + 1) - 1
            first = second = every | every << LABELS_MAX + 1
            if region:
                first = _join(self.regions, lambda label: is_within(label, region), 0)
            if quantisation:
                second = _join(self.quantisations, quantisation.__eq__, LABELS_MAX + 1)
            self.masks[wanted] = (first, second)
        return self.masks[wanted]


class Board:
    """See the module."""

    def __init__(
        self,
        offers: OfferIndex,
        health: HealthBook,
        measured: MeasuredBook,
        presence: PresenceBook,
        clock: Callable[[], float],
        region: str = "",
    ) -> None:
        self.health, self.measured, self.presence = health, measured, presence
        self.attested = AttestedBook(clock)
        self._clock = clock
        self._region = region
        self._groups: dict[tuple[str, str], Group] = {}
        self._of_provider: dict[Address, list[tuple[Group, Row]]] = {}
        self._funded: Set[Address] = frozenset()
        self._wakes: list[tuple[float, Address]] = []
        self._wake_of: dict[Address, float] = {}
        self._unread: set[ServiceKey] = set()
        offers.watch(self._replace_group)
        health.watch(self.refresh)
        presence.watch(self.refresh)
        self.attested.watch(self.refresh)
        measured.watch(self._take_measurement)

    def find_group(self, service_type: str, model: str) -> Group | None:
        """The offers of a model, up to date at this moment."""
        wakes = self._wakes
        while wakes and wakes[0][0] <= self._clock():
            at, provider = heapq.heappop(wakes)
            if self._wake_of.get(provider) == at:
                del self._wake_of[provider]
                self.refresh(provider)
        return self._groups.get((service_type, model))

    def list_rows(self, provider: Address) -> list[tuple[Group, Row]]:
        """The rows of one provider, each with its group."""
        return self._of_provider.get(provider, [])

    def keep_funded(self, providers: Set[Address]) -> None:
        """These have a sub-account, and no others."""
        before, self._funded = self._funded, frozenset(providers)
        for provider in before ^ self._funded:
            self.refresh(provider)

    def set_region(self, region: str) -> None:
        """This side is there from now on."""
        if region == self._region:
            return
        self._region = region
        for group in self._groups.values():
            for row in group.rows.values():
                row.features = self._get_features(row.listed)
            self._place(group, [], is_built=True)

    def refresh(self, provider: Address, service_id: int | None = None) -> None:
        """Take in what is known of a provider now, or of one of its services."""
        held = self._of_provider.get(provider)
        if not held:
            return
        is_ready = self._is_ready(provider)
        for group, row in held:
            if service_id not in (None, row.listed.offer.service_id):
                continue
            features = self._get_features(row.listed)
            if is_changed := _differs(features, row.features):
                row.features = features
            may_stand = is_ready and (row.features[5] > 0 or self._is_attested(row.listed))
            if row.leaf is None:
                if may_stand:
                    group.add(row)
                    if self.is_fresh(row) and not row.awaits_trial:
                        row.awaits_trial = True
                        group.fresh.append(row)
            elif not may_stand:
                group.remove(row)
            elif is_changed:
                group.move(row)

    def catch_up(self) -> None:
        """Take in what was measured of offers that stand alone: they are chosen without it."""
        while self._unread:
            self.refresh(*self._unread.pop())

    def _take_measurement(self, key: ServiceKey) -> None:
        for group, row in self._of_provider.get(key[0], ()):
            if row.service == key and len(group.rows) == 1:
                self._unread.add(key)
                return
        self.refresh(*key)

    def is_fresh(self, row: Row) -> bool:
        """Whether it is hardly measured yet."""
        return self.measured.get(row.service).answers < FRESH_ANSWERS

    def _is_ready(self, provider: Address) -> bool:
        if provider not in self._funded or self.presence.find_absence(provider) is not None:
            return False
        state, now = self.health.get(provider), self._clock()
        back_at = max(state.retry_at, state.barred_until)
        if back_at > now or (state.failures and state.retry_at + FORGET_S > now):
            self._wake(provider, back_at if back_at > now else state.retry_at + FORGET_S + 1)
        return not state.is_down(now)

    def _is_attested(self, listed: ListedOffer) -> bool:
        """Whether an offer of class `tee` may be chosen; it is looked at again when that ends."""
        standing = self.attested.find(listed.provider, listed.receipt_key)
        if standing is None or standing.valid_until <= self._clock():
            return False
        self._wake(listed.provider, standing.valid_until)
        return True

    def _wake(self, provider: Address, at: float) -> None:
        """Look at it again then, at the latest: whoever wakes earlier sees what is left to wait."""
        known = self._wake_of.get(provider)
        if known is None or at < known:
            self._wake_of[provider] = at
            heapq.heappush(self._wakes, (at, provider))

    def _get_features(self, listed: ListedOffer) -> Features:
        offer = listed.offer
        key = (offer.provider, offer.service_id)
        measured = self.measured.get(key)
        if measured.answers:
            first_s = measured.first_token_s
        else:
            first_s = self.health.get(offer.provider).latency_s or FIRST_TOKEN_S_USUAL
        if self.presence.is_cold(key):
            first_s += COLD_S
        token_s = measured.token_s or TOKEN_S_USUAL
        return (
            float(offer.prices.input_per_mtok),
            float(offer.prices.output_per_mtok),
            first_s,
            token_s * (1 + self.presence.get_wait(key)),
            self.health.get_risk(offer.provider),
            VERIFIABILITIES.index(offer.verifiability),
            int(bool(self._region) and not is_within(offer.region, self._region)),
        )

    def _replace_group(self, name: tuple[str, str], offers: Iterable[ListedOffer]) -> None:
        """Hold exactly these offers of a model; rows of the same offer stay where they are."""
        group = self._groups.get(name) or Group()
        held = {(o.provider, o.offer.service_id): o for o in offers}
        for key, row in list(group.rows.items()):
            if key not in held or row.listed is not held[key]:
                self._drop(group, row)
        new = [o for key, o in held.items() if key not in group.rows]
        is_built = len(new) > len(group.rows)
        if not held:
            self._groups.pop(name, None)
            return
        self._groups[name] = group
        for listed in new:
            self._put(group, listed)
        group.masks.clear()
        group.usual = get_usual_prices([row.listed.offer.prices for row in group.rows.values()])
        self._place(group, new, is_built=is_built)
        self.catch_up()

    def _put(self, group: Group, listed: ListedOffer) -> None:
        offer = listed.offer
        region = _number(group.regions, offer.region)
        quantisation = _number(group.quantisations, offer.quantisation) + LABELS_MAX + 1
        key = f"{offer.provider}/{offer.service_id:020d}"
        service, mask = (offer.provider, offer.service_id), 1 << region | 1 << quantisation
        row = group.rows[service] = Row(listed, service, key, self._get_features(listed), mask)
        self._of_provider.setdefault(offer.provider, []).append((group, row))

    def _place(self, group: Group, new: list[ListedOffer], *, is_built: bool) -> None:
        """Put rows into their trees: one by one, or all at once, which is cheaper for many."""
        if not (is_built or group.is_worn):
            for provider in {listed.provider for listed in new}:
                self.refresh(provider)
            return
        for row in group.rows.values():
            row.leaf, row.awaits_trial = None, False
        ready = [
            row
            for row in group.rows.values()
            if self._is_ready(row.listed.provider)
            and (row.features[5] > 0 or self._is_attested(row.listed))
        ]
        group.build(ready)
        group.fresh = [row for row in ready if self.is_fresh(row)]
        for row in group.fresh:
            row.awaits_trial = True

    def _drop(self, group: Group, row: Row) -> None:
        if row.leaf is not None:
            group.remove(row)
        del group.rows[row.service]
        left = [entry for entry in self._of_provider[row.listed.provider] if entry[1] is not row]
        if left:
            self._of_provider[row.listed.provider] = left
        else:
            del self._of_provider[row.listed.provider]


FRESH_ANSWERS = 3
"""Answers after which a provider is measured, and has to compete: three tell a mean from luck."""


def is_within(region: str, wanted: str) -> bool:
    """Whether a region is the wanted one or part of it: `eu` takes in `eu-north`."""
    return region == wanted or region.startswith(wanted + "-")


def _differs(new: Features, old: Features) -> bool:
    if new != old:
        for a, b in zip(new, old, strict=True):  # a generator would be made for each answer
            if abs(a - b) > CHANGE_MIN * b:
                return True
    return False


def _number(labels: dict[str, int], label: str) -> int:
    return labels.setdefault(label, min(len(labels), LABELS_MAX))


def _join(labels: dict[str, int], is_meant: Callable[[str], bool], shift: int) -> int:
    """The bits of all labels that are meant."""
    meant = {number for label, number in labels.items() if is_meant(label)}
    return sum(1 << number + shift for number in meant)
