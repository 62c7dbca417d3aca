"""Cheats that audits found, brought to Disputes and followed until they are closed.

    challenger = Challenger(home, open_court, folder, domain, own, bond_max, uri_base, tell)
    await challenger.run_round()

All that was done is on the chain: a challenge is named by receipt, challenger and evidence, so a
watcher that was killed finds its own again and never bonds twice for one piece of evidence. One
challenge a provider at a time: who is condemned by it needs no second. What is bonded is followed
to its end whatever becomes of the file.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from hanse.auditor.panels.accusing import bring, find_receipt, get_receipt_hash
from hanse.auditor.panels.court import Case, Court, find_next_step
from hanse.auditor.panels.steps import build_next
from hanse.auditor.watching.watcher import Tell
from hanse.chain import Registry
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.protocol.ledger.panels.sealing import Verdict as PanelVerdict
from hanse.protocol.ledger.panels.sealing import name_challenge
from hanse.protocol.ledger.panels.state import Stage
from hanse.protocol.signatures import Address, Hash32
from hanse.sdk.receipt_file import VerifiedReceipt, verify_receipt_document
from hanse.store.files import read_file
from hanse.verification.audits.judging import Verdict
from hanse.verification.evidence.breaches import is_breach, verify_breach
from hanse.verification.evidence.files import FILE_BYTES_MAX, get_evidence_hash, verify_evidence

OpenCourt = Callable[[bool], AbstractAsyncContextManager[Court]]
"""Opens Disputes for the key that pays bonds, fees and gas: to look at, or (True) to send."""

READ_MAX = 200
"""New files of evidence that are checked in a round: some seconds. The others come next."""

Step = tuple["Cheat | None", Case | None]
"""A case to take on, or a cheat to bring."""


@dataclass(frozen=True)
class Cheat:
    """One piece of evidence that says `cheat`."""

    path: Path
    content: bytes
    receipt: VerifiedReceipt

    @property
    def provider(self) -> Address:
        """Who is accused."""
        return self.receipt.receipt.receipt.provider

    def get_name(self, challenger: Address) -> Hash32:
        """What its challenge is called."""
        return name_challenge(
            get_receipt_hash(self.receipt), challenger, get_evidence_hash(self.content)
        )


@dataclass
class Challenger:
    """See the module.

    Attributes:
        home: where sealed answers are kept.
        open_court: opens the contract.
        folder: of evidence.
        domain: of this market's signatures.
        own: auditors whose word is worth a bond.
        bond_max: base units that may be bonded at once, fees of panels included.
        uri_base: where auditors find the files; empty for nowhere.
        tell: told what happens.
    """

    home: Path
    open_court: OpenCourt
    folder: Path
    domain: Domain
    own: Collection[Address]
    bond_max: int
    uri_base: str
    tell: Tell
    _known: dict[str, Cheat | None] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _said: set[str] = field(default_factory=set)
    _closed: dict[Hash32, Case] = field(default_factory=dict)
    _has_open: bool = True

    async def run_round(self) -> None:
        """One step for each cheat that is not settled. What fails is said, and tried again."""
        cheats = await asyncio.to_thread(self._list_cheats)
        if not cheats and not self._has_open:
            return
        try:
            async with self.open_court(False) as court:
                steps = await self._list_steps(court, cheats)
            if steps:
                async with self.open_court(True) as court:
                    for cheat, case in steps:
                        await self._try_step(court, cheat, case)
        except HanseError as error:
            self._say_waits(error)

    async def _try_step(self, court: Court, cheat: Cheat | None, case: Case | None) -> None:
        """One that fails keeps no other from its deadline."""
        try:
            await self._act(court, cheat, case)
        except HanseError as error:
            self._say_waits(error)

    def _say_waits(self, error: HanseError) -> None:
        self._say_once(
            f"{error.code} {error.message}",
            {"event": "challenge_waits", **error.to_openai()["error"]},
            f"a challenge waits: {error.message}",
        )

    def _list_cheats(self) -> list[Cheat]:
        """All that are known and not settled, and those of the next new files."""
        names = {path.name for path in self.folder.glob("*.json")} - self._done
        for name in sorted(names - self._known.keys())[:READ_MAX]:
            self._known[name] = read_cheat(self.folder / name, self.domain, self.own)
            if self._known[name] is None:
                self._done.add(name)
        found = (self._known.get(name) for name in sorted(names))
        return [cheat for cheat in found if cheat is not None]

    async def _list_steps(self, court: Court, cheats: Sequence[Cheat]) -> list[Step]:
        """What can be done now; what is bonded comes first."""
        events = [one for one in await court.list_challenges() if one.challenger == court.address]
        read = [
            await court.read_case(event) for event in events if event.challenge not in self._closed
        ]
        still_open = [case for case in read if case.challenge.stage != Stage.CLOSED]
        self._closed |= {case.name: case for case in read if case not in still_open}
        self._has_open = bool(still_open)
        steps: list[Step] = [
            (None, case)
            for case in still_open
            if find_next_step(case, court.now_s, court.block, court.terms)
        ]
        open_names = {case.name for case in still_open}
        accused = {case.challenge.provider for case in still_open}
        bonded = len(still_open) * _get_price(court)
        for cheat in cheats:
            name = cheat.get_name(court.address)
            if name in self._closed:
                self._finish(cheat, self._closed[name])
            if name in self._closed or name in open_names:
                continue
            if cheat.provider in accused or not await self._is_due(court, cheat):
                continue
            if bonded + _get_price(court) > self.bond_max:
                self._say_once(
                    cheat.path.name,
                    {"event": "bond_max", "provider": cheat.provider},
                    f"{cheat.provider} is not challenged: bonds above --bond-max",
                )
                continue
            bonded += _get_price(court)
            accused.add(cheat.provider)
            steps.append((cheat, None))
        return steps

    async def _is_due(self, court: Court, cheat: Cheat) -> bool:
        """Whether a challenge would still be heard; remembers if not."""
        registry = Registry(court.rpc, court.deployment.registry)
        found = await registry.read_provider(cheat.provider, block=court.block)
        finished_at = cheat.receipt.receipt.receipt.finished_at
        is_over = court.now_s > finished_at + court.terms.audit_window_s
        if found.is_condemned or is_over:
            self._done.add(cheat.path.name)
            why = "condemned already" if found.is_condemned else "too late by the chain's clock"
            self._say_once(
                cheat.path.name,
                {"event": "not_challenged", "provider": cheat.provider, "reason": why},
                f"{cheat.provider} is not challenged for {cheat.path.name}: {why}",
            )
        return not (found.is_condemned or is_over)

    async def _act(self, court: Court, cheat: Cheat | None, case: Case | None) -> None:
        if case is not None:
            step = find_next_step(case, court.now_s, court.block, court.terms)
            entry = await court.send(build_next(self.home, court, case))
            self.tell(
                {"event": step, "challenge": case.name, "transaction_hash": entry.transaction_hash},
                f"challenge {case.name}: {step}, transaction {entry.transaction_hash}",
            )
            return
        assert cheat is not None
        uri = f"{self.uri_base.rstrip('/')}/{cheat.path.name}" if self.uri_base else ""
        self._has_open = True
        name, entry = await bring(self.home, court, cheat.content, cheat.receipt, uri)
        self.tell(
            {
                "event": "challenged",
                "challenge": name,
                "provider": cheat.provider,
                "evidence": str(cheat.path),
                "bonded": str(_get_price(court)),
                "transaction_hash": entry.transaction_hash,
            },
            f"{cheat.provider} is challenged: {name}, transaction {entry.transaction_hash}",
        )

    def _finish(self, cheat: Cheat, case: Case) -> None:
        self._done.add(cheat.path.name)
        verdict = PanelVerdict(case.round.verdict).name.lower()
        self.tell(
            {
                "event": "closed",
                "challenge": case.name,
                "provider": cheat.provider,
                "verdict": verdict,
            },
            f"challenge {case.name} of {cheat.provider} is closed: {verdict}",
        )

    def _say_once(self, what: str, document: dict[str, object], text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self.tell(document, text)


def _get_price(court: Court) -> int:
    """What one challenge takes: the bond, and the panel's fees."""
    return court.terms.bond + court.terms.seats * court.terms.seat_fee


def read_cheat(path: Path, domain: Domain, own: Collection[Address]) -> Cheat | None:
    """The cheat that a file shows; None if it shows none, does not hold, or is not to bond on.

    An audit's numbers are its auditor's word, so only one of `own` is worth a bond: the folder may
    hold others' files. A broken promise takes nobody's word.
    """
    try:
        content = read_file(path, FILE_BYTES_MAX)
        if is_breach(content):
            broken = verify_breach(content, verify_receipt_document)
            is_here = broken.receipt.domain == domain
            return Cheat(path, content, find_receipt(content)) if is_here else None
        evidence = verify_evidence(content, verify_receipt_document)
    except HanseError:
        return None
    if evidence.statement.auditor not in own or evidence.receipt.domain != domain:
        return None
    if evidence.statement.judgement.verdict is not Verdict.CHEAT or evidence.content is None:
        return None
    return Cheat(path, content, find_receipt(content))
