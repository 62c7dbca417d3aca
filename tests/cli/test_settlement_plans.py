"""The settlement plan as people and programs see it, and the price of native coin that it needs."""

from dataclasses import replace
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hanse.cli.amounts import AssetUnits
from hanse.cli.output import Output
from hanse.cli.selling.settlement_plans import (
    CLAIMS_SHOWN_MAX,
    GasOptions,
    _render,
    describe_plan,
)
from hanse.protocol.errors import RequestError
from hanse.settlement.netting.plan import plan_settlement
from tests.settlement.test_plan import CALM, NOW_S, RULES, SPIKE, claim


def network_of(chain_id: int) -> Any:
    return SimpleNamespace(
        units=AssetUnits("hUSD", 6), deployment=SimpleNamespace(chain_id=chain_id)
    )


def document_of(claims: Any, market: Any = CALM, rules: Any = RULES) -> dict[str, Any]:
    since_s = NOW_S - 100_000
    return describe_plan(
        plan_settlement(claims, market, rules, since_s=since_s),
        plan_settlement(claims, market, rules, since_s=since_s, asked=True),
        rules,
    )


def text_of(document: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(_render(SimpleNamespace(output=Output()), network_of(1), document))
    return console.file.getvalue()


def test_native_coin_is_free_on_a_development_chain_only():
    assert GasOptions(None, None).get_rules(network_of(31_337)).native_price == 0
    with pytest.raises(RequestError, match="what is the native coin of chain 8453 worth in hUSD"):
        GasOptions(None, None).choose_native_price(network_of(8_453))
    rules = GasOptions("2500.5", 0.25).get_rules(network_of(8_453))
    assert (rules.native_price, rules.gas_share_ppm) == (2_500_500_000, 2_500)
    assert GasOptions("0", None).choose_native_price(network_of(8_453)) == 0


def test_a_plan_that_settles_names_value_gas_cost_and_who():
    document = document_of([claim(1, 10**9), claim(2, 10**9, NOW_S + 60), claim(3, 5)])
    assert (document["decision"], document["reason"]) == ("settle", "interval")
    assert document["value"] == "2000000000"
    assert [c["planned"] for c in document["claims"]] == [True, True, False]
    assert document["claims"][0]["refund_unlocks"] == NOW_S + 60
    (batch,) = document["batches"]
    assert (batch["claims"], batch["gas"], batch["cost"]) == (2, 86_000, "2150")
    text = text_of(document)
    assert "settles 2000 hUSD of 2 sub-accounts in 1 transactions, about 86,000 gas" in text
    assert "0.01 gwei" in text


def test_a_plan_that_is_late_because_of_gas_says_so_loudly():
    document = document_of([claim(1, 10**7)], SPIKE)
    assert (document["decision"], document["reason"], document["batches"]) == ("wait", "gas", [])
    assert document["overdue_s"] == 13_600
    text = text_of(document)
    assert "OVERDUE" in text
    assert "waits: gas would take" in text


def test_a_plan_of_nothing_has_no_table():
    text = text_of(document_of([], rules=replace(RULES, native_price=0)))
    assert "nothing can be claimed" in text
    assert "the gas rule is off" in text
    assert "signer" not in text


def test_a_huge_plan_fits_one_answer_of_the_broker():
    document = document_of([claim(n, 10**9) for n in range(CLAIMS_SHOWN_MAX + 7)])
    assert (len(document["claims"]), document["claims_not_shown"]) == (CLAIMS_SHOWN_MAX, 7)
    assert "and 7 more" in text_of(document)
