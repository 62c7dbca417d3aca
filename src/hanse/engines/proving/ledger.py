"""The tokens of one answer and their fingerprints, in line with what was metered.

A server may generate tokens of which it tells nothing: llama.cpp's drops those that end inside a
character, those that its chat parser keeps back, and the end of the text. A count that comes with
every token it does tell shows how many these are, and they take their places here as `UNTOLD`. So
entry and position always agree, and nobody is judged by a shifted sequence.

    ledger = Ledger(copy)
    ledger.add(token, tops, count)       # the server told of its count-th token
    entries = ledger.take(count)         # everything up to there that was not taken yet

Of several choices each has a count of its own, and their tokens stand in the order in which they
were told: who billed for them has committed to them, and no audit tells them apart.

Pure but for its own state; used by `hanse.engines.proving.frames`.
"""

from collections.abc import Iterable
from typing import Protocol

from hanse.protocol.commitments.copies import CopyDescription
from hanse.protocol.commitments.fingerprints import ABSENT, CANARIES, quantise
from hanse.protocol.commitments.tree import UNKNOWN_TOKEN, Entry
from hanse.protocol.errors import TransientError

UNTOLD = Entry(UNKNOWN_TOKEN, ABSENT)
"""A token that was generated and of which the server told nothing."""


class Told(Protocol):
    """One of the most likely tokens of a position."""

    @property
    def id(self) -> int:
        """The token."""

    @property
    def logprob(self) -> float:
        """Its raw logprob."""


class Ledger:
    """Collects the entries of one answer."""

    def __init__(self, copy: CopyDescription) -> None:
        self._first = copy.canary_ids[0]
        self._scale = copy.fingerprint_scale
        self._entries: list[Entry] = []
        self._taken = 0
        self._counts: dict[int, int] = {}

    def get_count(self, choice: int = 0) -> int:
        """Up to which token of this choice the server has told."""
        return self._counts.get(choice, 0)

    def get_missing(self, count: int, choice: int = 0) -> int:
        """How many tokens before a choice's `count`-th have no entry yet."""
        others = sum(self._counts.values()) - self.get_count(choice)
        return max(0, others + count - 1 - len(self._entries))

    def add(
        self,
        token: int,
        tops: Iterable[Told],
        count: int,
        untold: Iterable[int] = (),
        choice: int = 0,
    ) -> None:
        """Note a choice's `count`-th token with the raw logprobs of the most likely ones.

        Args:
            token: its id.
            tops: the most likely ids with their logprobs, the canaries among them.
            count: tokens of its choice up to and with this one.
            untold: ids of the tokens before it of which nothing was told, where they are known.
            choice: whose it is, of several.

        Raises:
            TransientError: it is a canary, which must not reach anybody.
        """
        first = self._first
        if 0 <= token - first < CANARIES:
            raise TransientError("engine_unavailable", "The engine chose a token that is no text.")
        for known in untold:
            self._entries.append(Entry(known, ABSENT))
        self._counts[choice] = count
        self._pad(sum(self._counts.values()) - 1)
        logits: list[float | None] = [None] * CANARIES
        found = 0
        for top in tops:
            place = top.id - first
            if 0 <= place < CANARIES:
                logits[place] = top.logprob
                found += 1
        self._entries.append(Entry(token, self._quantise(logits, found)))

    def take(self, count: int) -> tuple[Entry, ...]:
        """The entries up to the `count`-th token that were not taken yet."""
        self._pad(count)
        entries = tuple(self._entries[self._taken : count])
        self._taken += len(entries)
        return entries

    def _pad(self, count: int) -> None:
        missing = count - len(self._entries)
        if missing > 0:
            self._entries += [UNTOLD] * missing

    def _quantise(self, logits: list[float | None], found: int) -> bytes:
        """Without all canaries there is no fingerprint, rather than a wrong one."""
        if found != CANARIES:
            return ABSENT
        try:
            return quantise(logits, self._scale)  # type: ignore[arg-type]  # all were found
        except ValueError:  # a canary's logprob is not finite
            return ABSENT
