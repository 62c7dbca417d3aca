"""Asks the brokers of `tee` offers for their attestation, and verifies it by the user's policy.

A round comes with each look at the market: what is new is verified before it can be chosen, and
what was verified is verified again once a part of its time is over, so that a good machine is never
out in between. Refused evidence puts a provider out at once; one that does not answer keeps its
standing until it ends. Whoever failed is asked again later and later.

Every nonce is made here, for one question. The certificate of a provider's word is the receipt key
that the Registry names: the machine that holds it is the one that is verified.
"""

import asyncio
import logging
from collections.abc import Callable

from hanse.market import ListedOffer, OfferIndex
from hanse.market.attested import AttestedBook
from hanse.market.attested.book import TEE
from hanse.protocol.attestation.binding import ATTESTATION_PATH
from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.protocol.signatures import Address
from hanse.sdk.transport import Transport, read_body
from hanse.verification.attestation import (
    EVIDENCE_BYTES_MAX,
    Attestation,
    Expected,
    NonceBook,
    Policy,
    decode_evidence,
    verify_attestation,
)

AT_WORK_MAX = 1_024
"""Machines asked or waiting to be; of more, the others have their turn later."""

AT_ONCE_MAX = 32
"""Machines asked at once; each may send 4 MB."""

WAIT_S = 5.0
"""How long a look at the market waits for its machines; most answer within milliseconds."""

ANSWER_S = 30.0
"""A quote takes milliseconds; a GPU's token comes from a service and takes some seconds."""

RENEW_SHARE = 0.75
"""A verification is renewed when so much of its time is over."""

RETRY_S, RETRY_S_MAX = 15.0, 600.0
"""After a failure: doubled each time."""

_log = logging.getLogger(__name__)
_Machine = tuple[Address, Address]


class Attestations:
    """Keeps an `AttestedBook` up to date; without a policy all stay unverified, and so out."""

    def __init__(
        self,
        transport: Transport,
        offers: OfferIndex,
        book: AttestedBook,
        policy: Policy | None,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._transport, self._offers, self._book = transport, offers, book
        self._policy, self._clock = policy, clock
        self._nonces = NonceBook(clock, random_bytes)
        if policy is not None and policy.root:
            _log.warning(
                "the attestation policy names a root of its own, not Intel's: for tests alone"
            )
        self._due_at: dict[_Machine, float] = {}
        self._failures: dict[_Machine, int] = {}
        self._at_work: dict[_Machine, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)

    async def verify_due(self, wait_s: float = WAIT_S) -> None:
        """Begin to verify every machine that is new or due again, and wait a while for them.

        What takes longer goes on behind: a machine that keeps us waiting keeps nobody else out.
        """
        if self._policy is None:
            return
        now = self._clock()
        for listed in self._offers.list_all():
            machine = listed.provider, listed.receipt_key
            is_due = self._due_at.get(machine, now) <= now and machine not in self._at_work
            if listed.offer.verifiability != TEE or not is_due:
                continue
            if len(self._at_work) >= AT_WORK_MAX:
                break
            task = asyncio.create_task(self._verify(machine, listed, self._policy))
            self._at_work[machine] = task
        if self._at_work:
            await asyncio.wait(set(self._at_work.values()), timeout=wait_s)

    async def stop(self) -> None:
        """Give up what is being verified."""
        tasks = list(self._at_work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _verify(self, machine: _Machine, listed: ListedOffer, policy: Policy) -> None:
        try:
            async with self._slots, asyncio.timeout(ANSWER_S):
                attestation = await self._fetch(listed, policy)
        except VerificationError as error:
            self._refuse(machine, f"{error.code}: {error.message}")
        except (HanseError, TimeoutError) as error:
            reason = error.message if isinstance(error, HanseError) else f"silent {ANSWER_S:g} s"
            self._miss(machine, reason)
        except Exception as error:  # a defect of ours must not let a machine stand
            self._refuse(machine, f"attestation_malformed: {type(error).__name__}")
        else:
            now = self._clock()
            self._failures.pop(machine, None)
            self._due_at[machine] = now + RENEW_SHARE * (attestation.valid_until - now)
            self._book.verify_until(*machine, attestation.image, attestation.valid_until)
        finally:
            del self._at_work[machine]

    async def _fetch(self, listed: ListedOffer, policy: Policy) -> Attestation:
        nonce = self._nonces.issue()
        response = await self._transport.send(
            "GET", listed.endpoint + ATTESTATION_PATH + nonce, {}, b"", silence_s=ANSWER_S
        )
        try:
            body = await read_body(response, EVIDENCE_BYTES_MAX)
        finally:
            response.close()
        if response.status in (429, 503):
            raise TransientError("overloaded", f"status {response.status} for an attestation")
        if response.status != 200:
            raise VerificationError(
                "attestation_missing", f"it answers with status {response.status}, no attestation"
            )
        expected = Expected(listed.provider, listed.receipt_key, nonce)
        return await asyncio.to_thread(  # some milliseconds of signatures
            self._judge, body, expected, policy
        )

    def _judge(self, body: bytes, expected: Expected, policy: Policy) -> Attestation:
        now_s = int(self._clock())
        return verify_attestation(decode_evidence(body), expected, policy, self._nonces, now_s)

    def _refuse(self, machine: _Machine, reason: str) -> None:
        self._put_off(machine)
        self._book.refuse(*machine, reason)
        _log.warning("the machine of %s is refused: %s", machine[0], reason)

    def _miss(self, machine: _Machine, reason: str) -> None:
        """It did not answer: that is no sign of a fault, but it verifies nothing either."""
        self._put_off(machine)
        standing = self._book.find(*machine)
        if standing is None or standing.reason or standing.valid_until <= self._clock():
            self._book.refuse(*machine, f"attestation_missing: {reason}")

    def _put_off(self, machine: _Machine) -> None:
        failures = self._failures[machine] = self._failures.get(machine, 0) + 1
        wait_s = min(RETRY_S * 2 ** min(failures - 1, 16), RETRY_S_MAX)
        self._due_at[machine] = self._clock() + wait_s
