"""What one party's receipts may take of a recorder: leaves that wait for a root, and leaves a day.

    shares = Shares(tx, limits, now_s)     # within one transaction of the book
    shares.take(entry)                     # False: its provider or sub-account has had its share
    shares.store()                         # at the transaction's end

A matched receipt is kept for ever, and costs those who match it with one another nothing but their
own requests. So the disk that a registered provider can fill is bounded by the day. Days are UTC's,
counted in the book, so that a restart does not begin one anew. Whichever side submits last makes
the match, so the shares are looked at there and not at the submission.

Source: `docs/records.md`, section "Who may submit".
"""

from hanse.protocol.records import RecordEntry
from hanse.protocol.signatures import Address
from hanse.recorder import tables as sql
from hanse.recorder.settings import RecorderLimits
from hanse.store.database import Transaction

DAY_S = 86_400

_Party = tuple[str, str, str]


class Shares:
    """Counts within one transaction; nothing is written before `store`."""

    def __init__(self, tx: Transaction, limits: RecorderLimits, now_s: int) -> None:
        self._tx, self._limits, self._day = tx, limits, now_s // DAY_S
        self._open: dict[Address, int] = {}
        self._today: dict[_Party, int] = {}
        self._taken: set[_Party] = set()

    def take(self, entry: RecordEntry) -> bool:
        """Room for one more leaf of this entry's provider and sub-account, if there is."""
        limits, provider = self._limits, entry.provider
        parties = (
            (("", provider, ""), limits.leaves_per_day_of_provider),
            (entry.key[:3], limits.leaves_per_day_of_sub_account),
        )
        if self._count_open(provider) >= limits.open_leaves_of_provider_max:
            return False
        if any(self._count_today(party) >= most for party, most in parties):
            return False
        self._open[provider] += 1
        for party, _ in parties:
            self._today[party] += 1
            self._taken.add(party)
        return True

    def store(self) -> None:
        """Write the day's counts."""
        for party in sorted(self._taken):
            self._tx.execute(sql.UPSERT_DAY, (self._day, *party, self._today[party]))

    def _count_open(self, provider: Address) -> int:
        if provider not in self._open:
            row = self._tx.find_one(sql.COUNT_OPEN_OF_PROVIDER, (provider,))
            self._open[provider] = int(row[0]) if row else 0
        return self._open[provider]

    def _count_today(self, party: _Party) -> int:
        if party not in self._today:
            row = self._tx.find_one(sql.FIND_DAY, (*party, self._day))
            self._today[party] = int(row[0]) if row else 0
        return self._today[party]
