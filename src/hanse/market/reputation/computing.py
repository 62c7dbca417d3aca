"""The reputation of one provider: how often it is expected to fail, in parts per million.

    risk = (base * prior + sum of bad words) / (base + sum of bad words + sum of good words)

`prior` is what a provider of its age is expected to do without any word on it, `base` its own
stake. A witness has at most one bad and one good word on a provider, each of them at most as heavy
as its stake, and never heavier than `base`; how full a word is depends on what it has seen and how
long ago (`HALF_LIFE_S`). What follows:

- order does not matter, since all of it is sums of integers;
- more or fresher bad evidence never lowers the risk, more or fresher good never raises it;
- one witness alone lifts no risk above (prior + 1) / 2, whatever it stakes;
- witnesses who stake T together lift it to (base * prior + T) / (base + T) at most, however many
  names they spread it over: a name without stake says nothing;
- observations that nobody can run again, however many, make a quarter of a word at most;
- to defame a provider takes stake of the order of its own; to praise it, likewise.

A word that is false can be shown: anybody runs an audit again from its evidence (V5 of the ladder).
It costs its witness no stake, though, so weigh strangers' words no higher than this does. Proven
fraud is no matter of reputation: Registry condemns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hanse.market.reputation.fading import ONE, fade
from hanse.market.reputation.testimony import Testimony, Word
from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Address

PPM = 1_000_000

HALF_LIFE_S = 14 * 86_400
"""In which a word loses half its weight: long enough for a few audits of a small provider at 1 % to
add up, short enough that a card that was replaced is forgiven within two months."""

NEW_HALF_LIFE_S = 30 * 86_400
"""In which newness halves: who comes back under a new name starts over for about a month."""

PRIOR_PPM = 50_000
"""Expected of one that nobody has said anything about and that is not new: 5 %, as
`hanse.market.scoring.RISK_USUAL`."""

NEW_PPM = 50_000
"""Expected besides of one that registered just now: a new name counts like twice the failures."""

MASSES = {
    Word.AUDIT_FAILED: ONE,  # one recomputed answer that does not match fills a word
    Word.AUDIT_DOUBTED: ONE // 10,  # draws or counts that do not fit: honest engines differ too
    Word.AUDIT_PASSED: ONE // 20,
    Word.REQUEST_FAILED: ONE // 20,  # a timeout is not a cheat
    Word.FIRST_TOKEN: ONE // 40,
}
"""How much of a word each testimony fills when it is fresh."""

OBSERVED = frozenset({Word.REQUEST_FAILED, Word.FIRST_TOKEN})
"""What nobody can run again: a witness may have seen it, or say so."""

OBSERVED_MAX = ONE // 4
"""Most of a word that these fill together, however many: being down costs requests, no name."""

FIRST_TOKEN_MS_USUAL = 1_000
"""Up to here a time is a good word; what people call prompt, as in `hanse.market.scoring`."""

FIRST_TOKEN_MS_SLOW = 11_000
"""From here on a time is a bad word in full; between the two in proportion."""

TESTIMONIES_MAX = 1_000_000
"""Of one provider: a second of work. A month of audits at 1 % of a request a second is 26,000."""

RISK_STEPS_PPM = (25_000, 50_000, 100_000, 200_000, 400_000, 800_000)
"""By which a risk counts in matching, each double the last: half as many failures as usual at best.
Finer ones would tell offers apart that evidence does not, and make the search among 100,000 slower
(docs/measurements.md)."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one testimony gives.

    Attributes:
        testimony: which.
        is_bad: whether it speaks against the provider.
        weight: base units of stake that it speaks with now.
        share_ppm: `weight` as a part of everything that was weighed. The risk is the prior's part
            and the shares of all bad ones, up to rounding.
    """

    testimony: Testimony
    is_bad: bool
    weight: int
    share_ppm: int


@dataclass(frozen=True, slots=True)
class Reputation:
    """How a provider stands at a block.

    Attributes:
        provider: who.
        risk_ppm: share of requests and audits that is expected to fail.
        prior_ppm: the same without any testimony.
        newness_ppm: 1,000,000 at registration, half after `NEW_HALF_LIFE_S`.
        parts: what each testimony gave, heaviest first.
        unheard: testimonies that gave nothing: no stake, of the future, faded, told twice.
    """

    provider: Address
    risk_ppm: int
    prior_ppm: int
    newness_ppm: int
    parts: tuple[Part, ...]
    unheard: int

    def explain(self, shown_max: int = 10) -> list[str]:
        """Lines for people: the number, and which testimonies made it."""
        lines = [
            f"{self.provider} is expected to fail {_percent(self.risk_ppm)}; without any word "
            f"on it {_percent(self.prior_ppm)} (newness {_percent(self.newness_ppm)})"
        ]
        for part in self.parts[:shown_max]:
            said = part.testimony
            lines.append(
                f"  {'against' if part.is_bad else 'for'} {_percent(part.share_ppm)} "
                f"{said.word} by {said.witness} at {said.at_s}, evidence {said.evidence_hash}"
            )
        if len(self.parts) > shown_max:
            lines.append(f"  and {len(self.parts) - shown_max} more")
        if self.unheard:
            lines.append(f"  {self.unheard} without weight: no stake, told twice, or faded")
        return lines


def compute_reputation(
    provider: Address,
    testimonies: Iterable[Testimony],
    stakes: Mapping[Address, int],
    registered_at_s: int,
    now_s: int,
) -> Reputation:
    """The reputation of `provider` at a block.

    Args:
        provider: whom to look at; testimonies on others are passed over.
        testimonies: all that is public, in any order, repetitions allowed.
        stakes: base units at that block, of the provider and of whoever testifies; not there is 0.
        registered_at_s: time of the block in which the provider registered.
        now_s: time of the block that all of this is read at, unix seconds.

    Raises:
        RequestError: `invalid_request`, above `TESTIMONIES_MAX`.
    """
    unique, told = _keep_one_each(provider, testimonies)
    base = max(1, stakes.get(provider, 0))
    masses: dict[tuple[Address, bool], _Masses] = {}
    heard: list[tuple[Testimony, bool, int]] = []
    for said in unique:
        is_bad, mass = _weigh(said, now_s)
        if mass and said.witness != provider and stakes.get(said.witness, 0) > 0:
            masses.setdefault((said.witness, is_bad), _Masses()).add(said, mass)
            heard.append((said, is_bad, mass))
    words = {
        key: min(stakes[key[0]], base) * held.get_full() for key, held in masses.items()
    }  # base units times ONE
    bad = sum(word for (_, is_bad), word in words.items() if is_bad)
    total = base * ONE + sum(words.values())
    newness_ppm = fade(now_s - registered_at_s, NEW_HALF_LIFE_S) * PPM // ONE
    prior_ppm = PRIOR_PPM + NEW_PPM * newness_ppm // PPM
    risk_ppm = (base * ONE * prior_ppm + bad * PPM) // total
    parts = [
        _make_part(said, is_bad, mass, masses[said.witness, is_bad], words, total)
        for said, is_bad, mass in heard
    ]
    parts.sort(key=lambda part: (-part.share_ppm, part.testimony))
    return Reputation(provider, risk_ppm, prior_ppm, newness_ppm, tuple(parts), told - len(parts))


def get_risk_step(risk_ppm: int) -> int:
    """The one of `RISK_STEPS_PPM` that is nearest in proportion."""
    for step in RISK_STEPS_PPM:
        if risk_ppm * risk_ppm < 2 * step * step:
            return step
    return RISK_STEPS_PPM[-1]


def _keep_one_each(
    provider: Address, testimonies: Iterable[Testimony]
) -> tuple[list[Testimony], int]:
    """One testimony a piece of evidence, and how many there were.

    Of several that name one hash the earliest counts: whoever repeats another's evidence under a
    name of its own comes later. Of a tie the gravest: evidence of a cheat says less without its
    content, and anybody can leave that out. What is left is decided by the fields themselves.
    """
    kept: dict[str, Testimony] = {}
    told = 0
    for said in testimonies:
        if said.provider != provider:
            continue
        told += 1
        if told > TESTIMONIES_MAX:
            raise RequestError(
                "invalid_request",
                f"more than {TESTIMONIES_MAX} testimonies on {provider}: leave the oldest out",
            )
        held = kept.get(said.evidence_hash)
        if held is None or _get_rank(said) < _get_rank(held):
            kept[said.evidence_hash] = said
    return list(kept.values()), told


def _get_rank(said: Testimony) -> tuple[int, int, Testimony]:
    return said.at_s, -MASSES[said.word], said


def _weigh(said: Testimony, now_s: int) -> tuple[bool, int]:
    """Whether it speaks against the provider, and how much of a word it fills now."""
    if said.at_s > now_s:
        return True, 0  # not public yet
    fresh, is_bad = MASSES[said.word], said.word is not Word.AUDIT_PASSED
    if said.word is Word.FIRST_TOKEN:
        late_ms = min(said.first_token_ms, FIRST_TOKEN_MS_SLOW) - FIRST_TOKEN_MS_USUAL
        is_bad = late_ms > 0
        if is_bad:
            fresh = fresh * late_ms // (FIRST_TOKEN_MS_SLOW - FIRST_TOKEN_MS_USUAL)
    return is_bad, fresh * fade(now_s - said.at_s, HALF_LIFE_S) // ONE


@dataclass(slots=True)
class _Masses:
    """What one witness has seen for a provider, or against it."""

    shown: int = 0
    observed: int = 0

    def add(self, said: Testimony, mass: int) -> None:
        if said.word in OBSERVED:
            self.observed += mass
        else:
            self.shown += mass

    def get_full(self) -> int:
        """How full the word is, `ONE` at most."""
        return min(ONE, self.shown + min(self.observed, OBSERVED_MAX))

    def get_part(self, said: Testimony, mass: int) -> tuple[int, int]:
        """One testimony's part of the word, as a fraction."""
        counted = min(self.observed, OBSERVED_MAX)
        if said.word in OBSERVED:
            return mass * counted, self.observed * (self.shown + counted)
        return mass, self.shown + counted


def _make_part(
    said: Testimony,
    is_bad: bool,
    mass: int,
    held: _Masses,
    words: Mapping[tuple[Address, bool], int],
    total: int,
) -> Part:
    """One testimony's part of its witness's word, by its part of what the witness has seen."""
    part, whole = held.get_part(said, mass)
    scaled = words[said.witness, is_bad] * part
    return Part(said, is_bad, scaled // whole // ONE, scaled * PPM // whole // total)


def _percent(ppm: int) -> str:
    return f"{ppm // 10_000}.{ppm % 10_000 // 100:02d} %"
