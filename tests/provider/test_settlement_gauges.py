"""What a broker's gauges show of its settlements."""

from dataclasses import replace

from hanse.provider.metrics import BrokerMetrics
from hanse.settlement.netting.plan import plan_settlement
from hanse.settlement.netting.round_storage import RoundTimes
from tests.settlement.test_plan import CALM, NOW_S, RULES, SPIKE, claim


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
