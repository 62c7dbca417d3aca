"""The broker's loops: what is tried again, what ends the process, what the gauges show."""

import asyncio
from dataclasses import replace

import pytest

from hanse.protocol.errors import InvariantError, TransientError
from hanse.provider.loops import Loops
from hanse.provider.metrics import BrokerMetrics
from hanse.settlement.netting.plan import plan_settlement
from hanse.settlement.netting.round_storage import RoundTimes
from tests.provider.broker_parts import until
from tests.settlement.test_plan import CALM, NOW_S, RULES, SPIKE, claim


async def test_what_may_pass_is_tried_again_and_what_may_not_ends_the_process():
    told: list[str] = []
    loops = Loops(lambda: told.append("failed"))
    outcomes = [
        TransientError("chain_unavailable", "gone"),
        None,
        InvariantError("internal_error", "wrong"),
    ]
    done: list[object] = []

    async def work() -> None:
        outcome = outcomes[len(done)]
        done.append(outcome)
        if outcome:
            raise outcome

    loops.repeat(0.001, work)
    with pytest.raises(InvariantError, match="wrong"):
        await asyncio.wait_for(loops.failed, 5)
    assert (done, told) == (outcomes, ["failed"])
    await loops.stop()
    loops.close()


async def test_an_interval_of_nothing_never_runs_and_stopping_fails_nobody():
    loops = Loops()
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    async def forever() -> None:
        await asyncio.Event().wait()

    loops.repeat(0, work)
    loops.repeat(0.001, work)
    loops.spawn(forever())
    await until(lambda: ran)
    await loops.stop()
    assert not loops.failed.done()
    loops.close()
    assert loops.failed.cancelled()


async def test_a_loop_that_ends_is_a_failure():
    loops = Loops()

    async def end() -> None:
        return

    loops.spawn(end())
    with pytest.raises(RuntimeError, match="a loop ended"):
        await asyncio.wait_for(loops.failed, 5)
    await loops.stop()


def test_the_gauges_show_the_last_plan_and_the_alarm():
    metrics = BrokerMetrics()

    def read() -> dict[str, float]:
        lines = metrics.render().decode().splitlines()
        found = [line.rsplit(" ", 1) for line in lines if line.startswith("hanse_broker_settlem")]
        return {name.removeprefix("hanse_broker_settlement_"): float(v) for name, v in found}

    claims = [claim(1, 10**7)]
    plan = plan_settlement(claims, SPIKE, RULES, since_s=NOW_S - 100_000)
    metrics.show_plan(plan, RoundTimes(NOW_S - 100_000, 77))
    shown = read()
    assert (shown["value"], shown["overdue"], shown["last_seconds"]) == (10**7, 1, 77)
    assert shown["gas_price_wei"] == SPIKE.gas_price_wei
    assert shown["next_due_seconds"] == NOW_S - 100_000 + 86_400
    assert shown['decision{reason="gas"}'] == 1
    assert sum(v for name, v in shown.items() if name.startswith("decision")) == 1

    calm = plan_settlement(claims, CALM, replace(RULES, interval_s=10**6), since_s=NOW_S)
    metrics.show_plan(calm, RoundTimes(NOW_S, NOW_S))
    shown = read()
    assert (shown["overdue"], shown['decision{reason="gas"}']) == (0, 0)
    assert shown['decision{reason="not_yet"}'] == 1
