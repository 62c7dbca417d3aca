"""The faults, each with its weight. All end by themselves after some seconds of the run.

Assumptions that the protocol makes, and that the faults keep: no block with k others on it changes;
two clocks differ by less than 60 s; a node may be late, silent or inconsistent, but does not
invent confirmed blocks; no broker is away for a whole lock time.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from chaos.chain.node import Mood
from chaos.machine.network import Weather
from chaos.market.components import CLOCK_ERROR_S, Component
from chaos.market.sellers import BrokerComponent
from chaos.world import CHAIN_SPEED, CONFIRMATIONS
from hanse.engines.echo_engine import Fault

if TYPE_CHECKING:
    from chaos.driver import Driver

DOWN_S_MAX = 12.0
"""A tenth of a lock time, so that a broker can still claim before a refund."""


def crash(driver: "Driver", component: Component, lot: Random) -> None:
    """Kill -9 after some turns of its own: at any await."""
    component.crash(lot.choice((1, 3, 10, 30, 100, 300)) + lot.randrange(30), _draw(lot))


def disturb_node(driver: "Driver", component: Component, lot: Random) -> None:
    """Its node dies, lags, stutters or lies."""
    component.node.mood = lot.choice((Mood.DEAD, Mood.LAGS, Mood.FLAKY, Mood.LIES))
    component.node.lag = lot.randint(1, 8)

    def end() -> None:
        component.node.mood = Mood.HONEST

    _later(driver, lot, end)


def worsen_weather(driver: "Driver", component: Component, lot: Random) -> None:
    """Messages of everybody are lost, late, doubled or cut."""
    chance = lot.choice((0.05, 0.2, 0.5))
    name = lot.choice(("refused", "lost", "late", "twice", "cut", "stuck"))
    setattr(driver.world.network.weather, name, chance / (10 if name in ("cut", "stuck") else 1))

    def end() -> None:
        setattr(driver.world.network.weather, name, 0.0)

    _later(driver, lot, end)


def storm(driver: "Driver", component: Component, lot: Random) -> None:
    """All of it at once."""
    driver.world.network.weather = Weather(0.1, 0.1, 0.2, 0.3, 0.03, 0.01)

    def end() -> None:
        driver.world.network.weather = Weather()

    _later(driver, lot, end)


def slow_disk(driver: "Driver", component: Component, lot: Random) -> None:
    """Its commits and reads take up to seconds."""
    component.disk.slow = True

    def end() -> None:
        component.disk.slow = False

    _later(driver, lot, end)


def fill_disk(driver: "Driver", component: Component, lot: Random) -> None:
    """Its database cannot grow."""
    component.disk.full = True

    def end() -> None:
        component.disk.full = False

    _later(driver, lot, end)


def jump_clock(driver: "Driver", component: Component, lot: Random) -> None:
    """Its wall clock shows another time from now on."""
    driver.world.counts["clock_jump"] += 1
    component.clock_error_s = lot.uniform(-CLOCK_ERROR_S, CLOCK_ERROR_S)


def reorganise(driver: "Driver", component: Component, lot: Random) -> None:
    """Up to k blocks give way to others."""
    depth = driver.world.chain.reorganise(lot.randint(1, CONFIRMATIONS), lot.choice((0.0, 0.3, 1)))
    driver.world.counts["reorganisation"] += depth > 0
    driver.world.note(f"reorganised {depth} blocks, head {driver.world.chain.head.number}")


def lose_transaction(driver: "Driver", component: Component, lot: Random) -> None:
    """A pool forgets one."""
    pool = driver.world.chain.pool
    if pool:
        del pool[lot.choice(sorted(pool))]
        driver.world.counts["transaction_lost"] += 1


def hold_transactions(driver: "Driver", component: Component, lot: Random) -> None:
    """Miners leave out what waits now."""
    chain = driver.world.chain
    until_s = driver.world.get_chain_time_s() + lot.uniform(5.0, 60.0) * CHAIN_SPEED
    for sent in chain.pool.values():
        chain.held_until_s[sent.hash] = until_s
        driver.world.counts["transaction_delayed"] += 1


def repeat_transaction(driver: "Driver", component: Component, lot: Random) -> None:
    """Somebody broadcasts again what was broadcast before."""
    chain = driver.world.chain
    raws = [sent.raw for block in chain.blocks[-30:] for sent in block.sent]
    raws += [sent.raw for sent in chain.dropped]
    if not raws:
        return
    driver.world.counts["transaction_repeated"] += 1
    try:
        chain.receive(lot.choice(raws))
    except ValueError as error:
        driver.world.note(f"a repeated transaction: {error}")


def raise_base_fee(driver: "Driver", component: Component, lot: Random) -> None:
    """Blocks are wanted: what was offered before is too little."""
    driver.world.chain.raise_base_fee(lot.choice((3, 8)))
    driver.world.counts["fee_spike"] += 1


def break_engine(driver: "Driver", component: Component, lot: Random) -> None:
    """A broker's engine refuses, breaks off, hangs or says nothing."""
    broker = lot.choice(driver.sellers)
    after_tokens = lot.choice((0, 1, 5))
    fault = lot.choice(
        (
            Fault(kind="refuse"),
            Fault(kind="break", after_tokens=after_tokens),
            Fault(kind="hang", after_tokens=after_tokens),
            Fault(kind="empty"),
        )
    )
    broker.set_fault(fault)
    driver.world.counts[f"engine_{fault.kind}"] += 1
    _later(driver, lot, lambda: broker.set_fault(Fault()))


FAULTS: tuple[tuple[int, Callable[["Driver", Component, Random], None]], ...] = (
    (7, crash),
    (6, disturb_node),
    (4, worsen_weather),
    (1, storm),
    (2, slow_disk),
    (2, fill_disk),
    (2, jump_clock),
    (4, reorganise),
    (2, lose_transaction),
    (1, hold_transactions),
    (2, repeat_transaction),
    (1, raise_base_fee),
    (2, break_engine),
)
"""Each fault and its weight among the steps."""


def choose(only: str) -> tuple[tuple[int, Callable[["Driver", Component, Random], None]], ...]:
    """All faults, or one by its name, as often as all of them together; for looking closer."""
    if not only:
        return FAULTS
    total = sum(weight for weight, _ in FAULTS)
    return tuple((total, fault) for _, fault in FAULTS if fault.__name__ == only)


def mend(component: Component) -> None:
    """End whatever is wrong with a component, its process apart."""
    component.node.mood = Mood.HONEST
    component.disk.slow = component.disk.full = False
    component.clock_error_s = 0.0
    if isinstance(component, BrokerComponent):
        component.set_fault(Fault())


def _draw(lot: Random) -> float:
    return lot.choice((0.05, 0.5, 2.0, DOWN_S_MAX))


def _later(driver: "Driver", lot: Random, end: Callable[[], None]) -> None:
    driver.world.loop.call_later(lot.uniform(0.5, DOWN_S_MAX), end)
