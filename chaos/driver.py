"""What happens in a run: requests, moves of money and faults, one a step, drawn by lot.

    driver = Driver(world)
    driver.set_up()                 # providers registered, users funded; in calm
    for _ in range(steps): driver.step()
    driver.heal()                   # everything works again
    driver.drain()                  # until nothing is open, or a violation says what stays

A step does one thing and lets some time pass. Faults end by themselves after some seconds; crashed
components are started again. So most of a run has several faults at once, and calm moments too.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from chaos import faults
from chaos.machine.network import Weather
from chaos.market.buyers import Application, GatewayComponent, UserComponent
from chaos.market.components import Component
from chaos.market.recording import RecorderComponent, list_open_records
from chaos.market.sellers import SHARED, BrokerComponent
from chaos.market.tracing import list_open_traces
from chaos.verdict.books import list_open_work
from chaos.world import World, get_key
from hanse.sdk.account import Account

BLOCK_TIME_S = (1.0, 3.0)

SET_UP_S_MAX = 300.0
DRAIN_S_MAX = 1_500.0
"""For everything to end once all works again: vouchers that were never admitted are forgotten four
minutes after they were signed, refunds take a lock time of two."""

OPENING, TOP_UP = 40_000, 6_000


class Driver:
    """See the module."""

    def __init__(self, world: World, only: str = "") -> None:
        self.world = world
        shared = BrokerComponent(world, "broker-2", SHARED, has_traces=True)
        self.brokers = [BrokerComponent(world, "broker-1"), shared]
        second = BrokerComponent(world, "broker-2-second", SHARED, shared, has_traces=True)
        self.sellers = [*self.brokers, second]
        self.user = UserComponent(world, "user")
        self.gateway = GatewayComponent(world, "gateway")
        self.users: list[UserComponent] = [self.user, self.gateway]
        self.recorder = RecorderComponent(world)
        self.components: list[Component] = [*self.sellers, *self.users, self.recorder]
        self.application = Application(world, self.gateway)
        self.lot = world.lot_of("driver")
        self._providers = [get_key(broker.name).address for broker in self.brokers]
        self._mining = world.lot_of("mining")
        self._requests = 0
        self._is_over = False
        self._steps: list[tuple[int, Callable[[], None]]] = [
            (30, self._buy),
            (26, self._ask),
            (4, self._burst),
            (4, self._top_up),
            (4, self._request_refund),
            (1, self._cancel_refund),
            (2, self._claim_refund),
            (2, self._withdraw),
            (2, self._settle),
            (3, self._idle),
            *((weight, self._bind(fault)) for weight, fault in faults.choose(only)),
        ]
        self._weights = [weight for weight, _ in self._steps]
        self._mine()

    def set_up(self) -> None:
        """Providers on the market, users with money in sub-accounts."""
        for component in self.components:
            component.start()
        self._wait(lambda: all(b.is_admitting for b in self.sellers), SET_UP_S_MAX, "brokers admit")
        self._wait(lambda: all(u.is_open for u in self.users), SET_UP_S_MAX, "users are open")
        self.world.loop.run_for(15.0)  # the users' views reach the services
        funds = dict.fromkeys(self._providers, OPENING)
        for user in self.users:
            user.begin(user.move(lambda a, key: a.open(100_000, funds, key=key), "open"))
        self._wait(
            lambda: all(user.outcomes["open"] for user in self.users), SET_UP_S_MAX, "users opened"
        )

    def step(self) -> None:
        """One thing, and some time."""
        _, act = self.lot.choices(self._steps, self._weights)[0]
        act()
        self.world.loop.run_for(self.lot.choice((0.01, 0.05, 0.2, 0.5, 1.0)))

    def heal(self) -> None:
        """End every fault and start what is down."""
        self.world.note("heal")
        self.world.network.weather = Weather()
        for component in self.components:
            faults.mend(component)
            if component.process is not None:
                component.process.dies_at = None
            component.start()
        self.world.chain.held_until_s.clear()

    def drain(self, most_s: float = DRAIN_S_MAX) -> None:
        """Let everything end: answers, vouchers, claims, refunds, transactions."""
        self._wait(lambda: all(b.is_admitting for b in self.sellers), SET_UP_S_MAX, "brokers admit")
        self._wait(lambda: all(u.is_open for u in self.users), SET_UP_S_MAX, "users are open")
        self._wait(self._is_quiet, most_s, "all is quiet", every_s=5.0)
        self._is_over = True

    # ------------------------------------------------------------------ what users do

    def _get_lot(self) -> Random:
        self._requests += 1
        self.world.tallies["requests"] += 1
        return self.world.lot_of(f"request/{self._requests}")

    def _buy(self) -> None:
        self.user.begin(self.user.buy(self._get_lot()))

    def _ask(self) -> None:
        self.application.ask(self._get_lot())

    def _burst(self) -> None:
        for _ in range(self.lot.randint(3, 12)):
            self.lot.choice((self._buy, self._ask))()

    def _move(self, name: str, what: Callable[[Account, str], Any]) -> None:
        self.world.tallies["moves"] += 1
        user = self.lot.choice(self.users)
        user.begin(user.move(what, name))

    def _top_up(self) -> None:
        amount = self.lot.randint(1, TOP_UP)
        funds = {self.lot.choice(self._providers): amount}
        deposit = self.lot.choice((0, amount))
        self._move("top_up", lambda a, key: a.open(deposit, funds, key=key))

    def _request_refund(self) -> None:
        provider, amount = self.lot.choice(self._providers), self.lot.randint(1, TOP_UP)
        self._move("refund", lambda a, key: a.request_refund(provider, amount, key=key))

    def _cancel_refund(self) -> None:
        provider = self.lot.choice(self._providers)
        self._move("cancel", lambda a, key: a.cancel_refund(provider, key=key))

    def _claim_refund(self) -> None:
        provider = self.lot.choice(self._providers)
        self._move("claim", lambda a, key: a.claim_refund(provider, key=key))

    def _withdraw(self) -> None:
        amount = self.lot.randint(1, TOP_UP)
        self._move("withdraw", lambda a, key: a.withdraw(amount, key=key))

    def _settle(self) -> None:
        self.lot.choice(self.sellers).settle()

    def _idle(self) -> None:
        self.world.loop.run_for(self.lot.uniform(2.0, 15.0))

    # ------------------------------------------------------------------ the rest

    def _bind(self, fault: Callable[[Any, Component, Random], None]) -> Callable[[], None]:
        return lambda: fault(self, self.lot.choice(self.components), self.lot)

    def _mine(self) -> None:
        self.world.chain.mine()
        self.world.loop.call_later(self._mining.uniform(*BLOCK_TIME_S), self._mine)

    def _wait(
        self, condition: Callable[[], bool], most_s: float, what: str, every_s: float = 1.0
    ) -> None:
        deadline_s = self.world.loop.time() + most_s
        while not condition():
            if self.world.loop.time() > deadline_s:
                self.world.violate(f"not within {most_s:g} s: {what}; {self._open_work}")
                return
            self.world.loop.run_for(every_s)

    def _is_quiet(self) -> bool:
        self._open_work = list_open_work(self.world, self.brokers, self.users)
        self._open_work += list_open_records(self.recorder, [*self.brokers, *self.users])
        self._open_work += list_open_traces([*self.brokers, *self.users])
        if not self._open_work:
            return True
        for broker in self.sellers:
            broker.settle()
        return False

    _open_work: list[str] = []  # noqa: RUF012 (replaced, never changed)
