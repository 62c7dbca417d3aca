"""The choice of one provider for one request, in about a tenth of a millisecond.

    chooser = Chooser(board, policy, trial_share, random_fraction, available)
    choice = chooser.choose(shape, needs)         choice.candidate, choice.why
    chooser.rank(shape, needs)                    everybody, with scores and reasons: slow

In this order: a preferred provider that fits; a trial, with the small chance that there is one; the
provider that the session belongs to; the best score. Where the fast way finds nobody, everybody is
looked at: the least bad of those that are only left alone for their failures is asked, else the
error says why nobody is.
"""

from collections.abc import Callable, Collection

import msgspec

from hanse.market.affinity import POOL_MAX, choose_for
from hanse.market.board import Board, Group, Row
from hanse.market.matching import (
    STRENGTHS,
    Available,
    Candidate,
    Judge,
    Match,
    Needs,
    Ranked,
    explain,
    get_policy_coefficients,
    rank_all,
    rate,
)
from hanse.market.policy import CHEAPEST, WEIGHTS, Policy
from hanse.market.scoring import Coefficients, RequestShape
from hanse.market.tree import Found, search
from hanse.protocol.signatures import Address

TRIAL_FEE_FACTOR_MAX = 1.5
"""A trial is expected to cost at most half more than the best offer: what trying can lose."""

TRIALS_LOOKED_AT_MAX = 4
"""Fresh providers that are looked at for one trial; then there is none this time."""

BARRED_SHOWN_MAX = 4
"""Addresses in one header of those that audits keep out."""


class Choice(msgspec.Struct, frozen=True):
    """Who is asked, and why.

    Attributes:
        candidate: the offer, with its fees.
        why: `best`, `session`, `prefix`, `spill`, `trial`, `preferred` or `probe`.
        policy: by whose weights.
        ranked: its score; None unless the request asked for an explanation.
        pool: providers among which a session was placed.
        barred: of the same model, that audits of ours keep out; empty without an explanation.
    """

    candidate: Candidate
    why: str
    policy: Policy
    ranked: Ranked | None = None
    pool: int = 1
    barred: tuple[Address, ...] = ()

    def to_text(self) -> str:
        """For a header: one line of names and values."""
        fields = [("provider", self.candidate.listed.provider), ("why", self.why)]
        fields += [("policy", self.policy.name), ("pool", str(self.pool))]
        if self.ranked is not None:
            fields.append(("score", f"{self.ranked.score:.4g}"))
            parts = zip(WEIGHTS, self.ranked.parts, strict=True)
            fields += [(name, f"{part:.4g}") for name, part in parts]
        fields += [("barred-by-audit", provider) for provider in self.barred[:BARRED_SHOWN_MAX]]
        return ", ".join(f"{name}={value}" for name, value in fields)


class Chooser:
    """See the module.

    Attributes:
        board: what is known of the market.
        policy: of requests that name none.
    """

    def __init__(
        self,
        board: Board,
        available: Available,
        list_funded: Callable[[], Collection[Address]],
        random_fraction: Callable[[], float],
        *,
        policy: Policy = CHEAPEST,
        trial_share: float = 0.0,
    ) -> None:
        self.board = board
        self.policy = policy
        self._available = available
        self._list_funded = list_funded
        self._funded_count = -1
        self._random_fraction = random_fraction
        self._trial_share = trial_share

    def choose_by(self, policy: Policy, trial_share: float, region: str) -> None:
        """Choose so from the next request on; see `hanse.sdk.choosing` for what each means."""
        self.policy, self._trial_share = policy, trial_share
        self.board.set_region(region)

    def choose(self, shape: RequestShape, needs: Needs, now: float) -> Choice:
        """Choose for one request.

        Raises:
            HanseError: nobody fits: `model_not_found`, `insufficient_balance` with amounts,
                `unprocessable`, or `no_provider`.
        """
        group = self._find_group(shape)
        judge = Judge(self.board, shape, needs, now, self._available)
        if group is None:
            raise explain(Match((), ()), shape.model)
        explain_to = needs.explain_to
        if explain_to is not None or needs.deadline_s:
            self.board.catch_up()
        row, why, pool = self._find(group, judge)
        if row is None:
            row, why = self._find_slowly(group, judge)
        ranked = None
        if explain_to is not None:
            ranked = rate(row, judge, get_policy_coefficients(group, judge, self.policy))
        policy = needs.policy or self.policy
        choice = Choice(judge.to_candidate(row), why, policy, ranked, pool)
        if explain_to is not None:
            choice = msgspec.structs.replace(choice, barred=self._list_barred(group, now))
            explain_to(choice)
        return choice

    def rank(self, shape: RequestShape, needs: Needs, now: float) -> Match:
        """Every offer of the model: what fits, best first, and why the rest does not."""
        group = self._find_group(shape)
        if group is None:
            return Match((), ())
        self.board.catch_up()
        judge = Judge(self.board, shape, needs, now, self._available)
        return rank_all(group, judge, self.policy)

    def _find_group(self, shape: RequestShape) -> Group | None:
        funded = self._list_funded()
        if len(funded) != self._funded_count:  # nobody who was funded ever leaves
            self._funded_count = len(funded)
            self.board.keep_funded(frozenset(funded))
        return self.board.find_group(shape.service_type, shape.model)

    def _list_barred(self, group: Group, now: float) -> tuple[Address, ...]:
        barred = self.board.health.list_barred(now)
        return tuple(
            provider
            for provider in barred
            if any(of_group is group for of_group, _ in self.board.list_rows(provider))
        )

    def _find(self, group: Group, judge: Judge) -> tuple[Row | None, str, int]:
        needs, shape = judge.needs, judge.shape
        if needs.preferred is not None:
            row = self._find_row(group, judge, needs.preferred)
            if row is not None:
                return row, "preferred", 1
        if len(group.rows) == 1:  # nothing to compare, to try or to spill over to
            (row,) = group.rows.values()
            fits = row.leaf is not None and judge.fits(row)
            return row if fits else None, _get_place(shape), 1
        policy = needs.policy or self.policy
        coefficients = get_policy_coefficients(group, judge, policy)
        is_placed = bool(shape.affinity)
        tolerance = policy.tolerance if is_placed else 0.0
        found = find_best(group, judge, coefficients, POOL_MAX if is_placed else 1, tolerance)
        if not found:
            return None, "", 0
        trial = self._find_trial(group, judge, found[0][2])
        if trial is not None:
            return trial, "trial", len(found)
        if not is_placed:
            return found[0][2], _get_place(shape), 1
        presence = self.board.presence
        row, is_spilt = choose_for(
            shape.affinity, found, tolerance, lambda one: presence.get_free(one.service)
        )
        return row, "spill" if is_spilt else _get_place(shape), len(found)

    def _find_slowly(self, group: Group, judge: Judge) -> tuple[Row, str]:
        self.board.catch_up()
        found = rank_all(group, judge, self.policy)
        if found.ranked:
            return found.ranked[0].row, "best"
        coefficients = get_policy_coefficients(group, judge, self.policy)
        row = find_probe(group, judge, coefficients)
        if row is None:
            raise explain(found, judge.shape.model)
        return row, "probe"

    def _find_trial(self, group: Group, judge: Judge, best: Row) -> Row | None:
        """A fresh provider, as often as `trial_share` says; each has the same chance."""
        share, fresh = self._trial_share, group.fresh
        if not share or not fresh or judge.shape.is_session:
            return None
        drawn = self._random_fraction()
        if drawn >= share:
            return None
        most = judge.to_candidate(best).expected_fee * TRIAL_FEE_FACTOR_MAX
        place = int(drawn / share * len(fresh))
        for _ in range(min(TRIALS_LOOKED_AT_MAX, len(fresh))):
            if not fresh:
                return None
            place %= len(fresh)
            row = fresh[place]
            if row.leaf is None or not self.board.is_fresh(row):
                row.awaits_trial = False
                fresh[place] = fresh[-1]
                fresh.pop()
                continue
            if judge.fits(row) and judge.to_candidate(row).expected_fee <= most:
                return row
            place += 1
        return None

    def _find_row(self, group: Group, judge: Judge, provider: Address) -> Row | None:
        for of_group, row in self.board.list_rows(provider):
            if of_group is group and judge.fits(row):
                return row
        return None


def _get_place(shape: RequestShape) -> str:
    """Why the first one is asked: what belongs to it, if anything does."""
    if not shape.affinity:
        return "best"
    return "session" if shape.is_session else "prefix"


def find_best(
    group: Group, judge: Judge, coefficients: Coefficients, most: int, tolerance: float
) -> Found:
    """The best offers that fit, best first: the same as the first ones of `rank_all`."""
    needs = judge.needs
    return search(
        group.trees.values(),
        coefficients,
        judge.fits,
        most=most,
        tolerance=tolerance,
        strength_max=STRENGTHS[needs.verifiability_min],
        masks=group.get_masks(needs.region, needs.quantisation),
    )


def find_probe(group: Group, judge: Judge, coefficients: Coefficients) -> Row | None:
    """Of the offers that only failures of late stand against, the least bad one.

    That is the one with the fewest failures in a row, of these the one whose back-off ends first.
    """
    health, probing = judge.board.health, msgspec.structs.replace(judge, probes=True)

    def get_badness(row: Row) -> tuple[int, float, float, str]:
        state = health.get(row.listed.provider)
        return state.failures, state.retry_at, coefficients.get_score(row.features), row.key

    return min(
        (
            row
            for row in group.rows.values()
            if health.get(row.listed.provider).is_worth_a_probe(judge.now) and probing.fits(row)
        ),
        key=get_badness,
        default=None,
    )
