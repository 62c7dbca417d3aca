"""Offers of class `tee` are asked only while their machine is verified, whatever they claim."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from hanse.market import ListedOffer, OfferIndex
from hanse.market.attested import AttestedBook
from hanse.market.attested.book import UNVERIFIED
from hanse.protocol.attestation.binding import ATTESTATION_PATH
from hanse.protocol.errors import TransientError
from hanse.provider.attesting import Attesting
from hanse.provider.attesting.service import send_attestation
from hanse.provider.http import send_json
from hanse.sdk import Hanse
from hanse.sdk.attesting import Attestations
from hanse.sdk.choosing import Choosing
from hanse.sdk.transport.asgi import AsgiTransport
from hanse.verification.attestation import decode_policy
from tests.sdk.conftest import CHEAP, DOMAIN, Clock, World, to_service
from tests.sdk.fake_broker import FakeBroker
from tests.verification.attestation.made_attestations import Made
from tests.verification.attestation.made_machine import MachineHere, make_attesting
from tests.verification.attestation.made_platform import NOW

PATH = "/v1/chat/completions"


class Front:
    """A broker's port, with what attests beside it; `status` other than 200 answers with that."""

    def __init__(self, broker: FakeBroker, attesting: Attesting) -> None:
        self.broker, self.attesting = broker, attesting
        self.asked, self.status = 0, 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if not path.startswith(ATTESTATION_PATH):
            await self.broker(scope, receive, send)
            return
        self.asked += 1
        if self.status == 200:
            nonce = path.removeprefix(ATTESTATION_PATH)
            await send_attestation(self.attesting, send, nonce)
        else:
            await send_json(send, self.status, {})


class Forever:
    """A source of quotes that never gives one."""

    async def fetch_quote(self, report_data: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("nobody ends it")


class TeeWorld(World):
    """A world with one broker of class `tee`, on a machine of the tests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        broker = FakeBroker(
            DOMAIN, b"\x11" * 32, self.clock, url="http://tee", prices=CHEAP, verifiability="tee"
        )
        self.cheap = broker
        self.only(broker)
        self.machine = MachineHere()
        self.front = Front(
            broker,
            make_attesting(self.folder, broker.provider, broker.key.address, self.machine),
        )
        self.transport = AsgiTransport({broker.url: self.front})
        self.allow(Made())

    def allow(self, made: Made | None) -> None:
        """The user's policy is this one's; None for no policy."""
        policy = decode_policy(made.build()[1]) if made else None
        self.choosing = Choosing(trial_share=0.0, attestation=policy)


@pytest.fixture
def world(tmp_path: Path) -> TeeWorld:
    clock = Clock()
    clock.now = NOW
    return TeeWorld(tmp_path, clock)


async def buy(hanse: Hanse) -> None:
    await hanse.chat("echo", [{"role": "user", "content": "hello"}])


def get_reason(hanse: Hanse) -> str:
    """What `hanse match --explain` shows of the one offer; empty if it may be asked."""
    found = hanse.rank(PATH, b'{"model":"echo","messages":[]}')
    assert all(one.kind == "attestation" for one in found.exclusions)
    return found.exclusions[0].reason if found.exclusions else ""


async def test_a_machine_is_verified_before_its_first_request(world):
    async with world.open() as hanse:
        assert world.front.asked == 1
        assert get_reason(hanse) == ""
        await buy(hanse)
        assert world.cheap.paid_requests == 1
        await hanse.discover()
        assert world.front.asked == 1, "what is verified is not asked again at once"


async def test_without_a_policy_nobody_of_class_tee_is_asked(world):
    world.allow(None)
    async with world.open() as hanse:
        assert "attestation policy" in get_reason(hanse)
        with pytest.raises(TransientError) as caught:
            await buy(hanse)
        assert caught.value.code == "no_provider"
    assert (world.front.asked, world.cheap.paid_requests) == (0, 0)


async def test_a_machine_that_runs_something_else_gets_no_request(world):
    world.machine.measured = "44" * 48
    async with world.open() as hanse:
        assert "attestation_measurement_refused" in get_reason(hanse)
        with pytest.raises(TransientError):
            await buy(hanse)
    assert world.cheap.paid_requests == 0


async def test_a_quote_of_another_key_gets_no_request(world):
    world.front.attesting = make_attesting(
        world.folder, world.cheap.provider, "0x" + "99" * 20, world.machine
    )
    async with world.open() as hanse:
        assert "attestation_key_mismatch" in get_reason(hanse)


@pytest.mark.parametrize("status", [404, 500, 503, 429])
async def test_a_broker_that_gives_no_attestation_gets_no_request(world, status):
    world.front.status = status
    async with world.open() as hanse:
        assert "attestation_missing" in get_reason(hanse)


async def test_a_machine_is_verified_again_before_its_time_is_over(world):
    async with world.open() as hanse:
        world.clock.now += 2_800  # three quarters of the policy's hour
        assert get_reason(hanse) == ""
        await hanse.discover()
        assert world.front.asked == 2
        world.clock.now += 2_000  # beyond the first hour
        assert get_reason(hanse) == ""


async def test_a_machine_that_is_silent_is_out_when_its_time_is_over(world):
    async with world.open() as hanse:
        world.front.status = 503
        world.clock.now += 2_800
        await hanse.discover()
        assert get_reason(hanse) == "", "its standing lasts"
        world.clock.now += 900
        assert "too old" in get_reason(hanse)
        world.front.status = 200
        await hanse.discover()
        assert get_reason(hanse) == ""


async def test_a_machine_that_has_changed_is_out_at_once(world):
    async with world.open() as hanse:
        world.machine.measured = "44" * 48
        world.clock.now += 2_800
        await hanse.discover()
        assert "attestation_measurement_refused" in get_reason(hanse)
        world.machine.measured = "33" * 48
        await hanse.discover()
        assert world.front.asked == 2, "it is left alone for a while"
        world.clock.now += 15
        await hanse.discover()
        assert get_reason(hanse) == ""


async def test_a_new_receipt_key_is_a_new_machine(world):
    async with world.open() as hanse:
        broker = world.cheap
        other = FakeBroker(
            DOMAIN,
            b"\x77" * 31 + b"\x11",
            world.clock,
            url=broker.url,
            verifiability="tee",
        )
        assert other.provider == broker.provider
        world.front.broker = other
        world.chain.services = [to_service(other)]
        await hanse.discover()
        assert "attestation_key_mismatch" in get_reason(hanse)


async def test_a_machine_that_keeps_us_waiting_holds_up_nobody_else(world):
    slow = FakeBroker(
        DOMAIN, b"\x22" * 32, world.clock, url="http://slow", prices=CHEAP, verifiability="tee"
    )
    front = Front(slow, make_attesting(world.folder, slow.provider, slow.key.address, Forever()))
    transport = AsgiTransport({world.cheap.url: world.front, slow.url: front})
    offers, book = OfferIndex(), AttestedBook(world.clock)
    listed = [
        ListedOffer(broker.offer, broker.offer_hash, broker.key.address)
        for broker in (slow, world.cheap)
    ]
    offers.replace_all(listed)
    machines = Attestations(
        transport, offers, book, world.choosing.attestation, world.clock, secrets.token_bytes
    )
    await machines.verify_due(0.05)
    await machines.verify_due(0.05)
    assert front.asked == 1, "it is asked once, and goes on behind"
    assert [book.find_problem(one) for one in listed] == [UNVERIFIED, ""]
    await machines.stop()
