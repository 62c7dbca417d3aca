"""Gas of settlement and onboarding, against the bars of the project: `make bench-gas`.

Whole transactions under the Prague rules: intrinsic gas, calldata, execution on cold storage,
refunds and EIP-7623's floor, every signature real and every user another. A table for people goes
to standard error, one JSON object a line to standard output; the exit status is 1 above a bar.

`settle` is the steady state, a sub-account that was claimed from before; `settle_first` is each
sub-account's first claim. In both the payee has been paid before. `onboard` is a new user's first
transaction to one provider on an Escrow in use. The calls of Disputes go by their names;
`seal_vote` and `reveal_vote` are the panel's last. `commit` is a recorder's, `commit_first`
and `commit_second` its first two, which pay for a fresh slot each.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from hanse.protocol.intents import Fund, OpenIntent, authorize_open
from hanse.protocol.ledger.panels.sealing import (
    Verdict,
    name_challenge,
    seal_answer,
    seal_vote,
)
from hanse.protocol.signatures import to_bytes, to_compact, to_hex
from tests.contracts.cold_gas import SPEC
from tests.contracts.dispute_parts import Case
from tests.contracts.local_evm import Hanse, Key, deploy_hanse, key_of
from tests.contracts.panel_parts import (
    APPELLANT,
    AUDITORS,
    CHALLENGER,
    EVIDENCE,
    PANELS,
    SALT,
    URI,
    open_court,
    to_arguments,
)

GAS_PER_CLAIM_AT_200_MAX = 13_000
ONBOARD_GAS_MAX = 150_000
COMMIT_GAS_MAX = 60_000
CLAIM_COUNTS = (1, 10, 50, 200)
MILLION = 1_000_000


def main() -> int:
    rows = list(measure())
    table = Table(title=f"Gas of whole transactions ({SPEC.title()} rules, cold storage)")
    for heading in ("case", "claims", "gas", "gas a claim", "bar", ""):
        table.add_column(heading, justify="left" if heading in ("case", "") else "right")
    for row in rows:
        print(json.dumps(row))
        bar = row.get("bar")
        value = row.get("gas_per_claim", row["gas"])
        verdict = "" if bar is None else "above the bar" if value > bar else "ok"
        cells = (row.get("claims"), row["gas"], row.get("gas_per_claim"), bar)
        table.add_row(row["case"], *(f"{c:,}" if c is not None else "" for c in cells), verdict)
    Console(stderr=True).print(table)
    return int(any(row.get("gas_per_claim", row["gas"]) > row.get("bar", 2**63) for row in rows))


def measure() -> Iterator[dict[str, Any]]:
    for claims in CLAIM_COUNTS:
        yield from measure_settlement(claims)
    hanse, provider, _ = open_market()
    newcomer, signer = key_of("newcomer"), key_of("session key")
    hanse.chain.call(newcomer.address, hanse.asset, "mint", newcomer.address, 100 * MILLION)
    fund = Fund(provider.address, signer.address, 10 * MILLION)
    for case, deposit in (("onboard", 10 * MILLION), ("onboard_with_rest", 25 * MILLION)):
        data = encode_open_with_permit(hanse, newcomer, deposit, fund)
        gas = hanse.chain.gas_of(newcomer.address, hanse.escrow, data)
        yield {"case": case, "gas": gas, "bar": ONBOARD_GAS_MAX, "spec": SPEC}
    for form, encode in (
        ("permit", encode_relayed_with_permit),
        ("authorization", encode_relayed_with_authorization),
    ):
        data = encode(hanse, newcomer, 10 * MILLION, fund)
        gas = hanse.chain.gas_of(key_of("relayer").address, hanse.escrow, data)
        yield {"case": f"onboard_relayed_{form}", "gas": gas, "bar": ONBOARD_GAS_MAX, "spec": SPEC}
    yield from measure_proofs()
    yield from measure_commits()
    yield from measure_challenge()


def measure_proofs() -> Iterator[dict[str, Any]]:
    """A first proof, which condemns, and pays a user who has an account already."""
    hanse, provider, receipt_key = open_market()
    user, reporter = key_of("user"), key_of("reporter")
    hanse.mint(user.address, 100 * MILLION)
    fund = (provider.address, user.address, 90 * MILLION)
    hanse.escrow_call(user, "open", 100 * MILLION, [fund])
    case = Case(hanse, user, provider, user, receipt_key, reporter)
    case.settle(claimed=50_123_457, sequence=100_003)
    receipts = [case.receipt(100_003, total) for total in (40_123_457, 45_123_457)]
    for name, arguments in (
        ("prove_overclaim", receipts[0]),
        ("prove_equivocation", (*receipts[0], *receipts[1])),
    ):
        data = hanse.chain.artifacts[hanse.escrow].encode_call(name, *arguments)
        gas = hanse.chain.gas_of(reporter.address, hanse.escrow, data)
        yield {"case": name, "gas": gas, "spec": SPEC}


def measure_commits() -> Iterator[dict[str, Any]]:
    hanse, recorder = deploy_hanse(), key_of("recorder")
    root = b"\x5a" * 32
    data = hanse.chain.artifacts[hanse.records].encode_call("commit", root, 1_000_003, 10**12 + 7)
    for case in ("commit_first", "commit_second", "commit"):
        gas = hanse.chain.gas_of(recorder.address, hanse.records, data)
        yield {"case": case, "gas": gas, "bar": COMMIT_GAS_MAX, "spec": SPEC}
        hanse.chain.send(recorder.address, hanse.records, data)


def measure_challenge() -> Iterator[dict[str, Any]]:
    """Each call of a challenge that is upheld, by a panel of 3, on a court that was used before."""
    court = open_court()
    used = court.challenge(evidence="0x" + "e7" * 32)
    court.decide(used, *[Verdict.REJECTED] * PANELS.seats)
    court.open_answer(used)
    hanse, salt = court.hanse, to_bytes(SALT)
    disputes = hanse.chain.artifacts[hanse.disputes]
    name = name_challenge(
        to_hex(hanse.domain.digest(court.receipt().receipt.struct_hash())),
        CHALLENGER.address,
        EVIDENCE,
    )
    encoded = to_bytes(name)

    def measure_one(caller: Key, function: str, *arguments: Any) -> dict[str, Any]:
        data = disputes.encode_call(function, *arguments)
        gas = hanse.chain.gas_of(caller.address, hanse.disputes, data)
        hanse.chain.send(caller.address, hanse.disputes, data)
        return {"case": function, "gas": gas, "spec": SPEC}

    yield measure_one(AUDITORS[0], "join", 1)
    sealed = to_bytes(seal_answer(CHALLENGER.address, Verdict.NONE, SALT))
    accused = (*to_arguments(court.receipt()), to_bytes(EVIDENCE), URI, sealed)
    yield measure_one(CHALLENGER, "challenge", *accused)
    hanse.chain.mine(3)
    yield measure_one(CHALLENGER, "draw", encoded)
    panel = court.get_panel(name)
    rows = []
    for auditor in panel:
        sealed = to_bytes(seal_vote(name, 1, auditor.address, Verdict.UPHELD, SALT))
        rows.append(measure_one(auditor, "seal_vote", encoded, sealed))
    for auditor in panel:
        rows.append(measure_one(auditor, "reveal_vote", encoded, 1, salt))
    yield rows[PANELS.seats - 1]
    yield rows[-1]
    yield measure_one(CHALLENGER, "tally", encoded)
    data = disputes.encode_call("appeal", encoded)
    gas = hanse.chain.gas_of(APPELLANT.address, hanse.disputes, data)
    yield {"case": "appeal", "gas": gas, "spec": SPEC}
    hanse.chain.advance(PANELS.appeal_time_s)
    yield measure_one(CHALLENGER, "open_answer", encoded, 0, salt)
    yield measure_one(CHALLENGER, "withdraw")


def measure_settlement(claims: int) -> Iterator[dict[str, Any]]:
    hanse, provider, receipt_key = open_market()
    users = [key_of(f"user {number} of {claims}") for number in range(claims)]
    for user in users:
        hanse.mint(user.address, 100 * MILLION)
        fund = (provider.address, user.address, 100 * MILLION)
        hanse.escrow_call(user, "open", 100 * MILLION, [fund])

    def encode(day: int) -> bytes:
        # Amounts and counts of no special roundness: zero bytes of calldata are cheaper.
        rows = [
            hanse.claim(
                user,
                provider,
                user,
                cumulative_max=day * 5_123_457 + 211 * number + 54_321,
                claimed=day * 5_123_457 + 211 * number,
                sequence=day * 100_003 + number,
                sequence_max=day * 100_003 + number + 7,
                request_hash="0x" + f"{number * day + 1:02x}".rjust(64, "7"),
            )
            for number, user in enumerate(users)
        ]
        escrow = hanse.chain.artifacts[hanse.escrow]
        return escrow.encode_call("settle", provider.address, rows, b"\x5a" * 32)

    for case, day in (("settle_first", 1), ("settle", 2)):
        gas = hanse.chain.gas_of(receipt_key.address, hanse.escrow, encode(day))
        row = {"case": case, "claims": claims, "gas_per_claim": round(gas / claims), "gas": gas}
        if claims == 200:
            row["bar"] = GAS_PER_CLAIM_AT_200_MAX
        yield {**row, "spec": SPEC}
        paid = hanse.chain.send(receipt_key.address, hanse.escrow, encode(day))
        assert paid[1][0].fields["paid"] > 0
        assert all(word >> 128 & 0xFF == 6 for word in paid[1][0].fields["results"])


def open_market() -> tuple[Hanse, Key, Key]:
    """A provider that was paid before, and an Escrow that holds somebody's money already."""
    hanse = deploy_hanse()
    provider, receipt_key, depositor = (
        key_of("provider"),
        key_of("receipt key"),
        key_of("depositor"),
    )
    hanse.register(provider, receipt_key)
    hanse.mint(provider.address, 1)
    hanse.mint(depositor.address, MILLION)
    hanse.escrow_call(depositor, "deposit", MILLION)
    return hanse, provider, receipt_key


def encode_open_with_permit(hanse: Hanse, user: Key, deposit: int, fund: Fund) -> bytes:
    deadline = hanse.chain.now_s + 600
    v, r, s = hanse.sign_permit(user, hanse.escrow, deposit, deadline)
    escrow = hanse.chain.artifacts[hanse.escrow]
    funds = [(fund.provider, fund.signer, fund.amount)]
    return escrow.encode_call("open_with_permit", deposit, funds, deadline, v, r, s)


def encode_relayed_with_permit(hanse: Hanse, user: Key, deposit: int, fund: Fund) -> bytes:
    deadline = hanse.chain.now_s + 600
    intent = OpenIntent(user.address, deposit, (fund,), 0, deadline)
    intent_r, vs = to_compact(user.sign(hanse.domain.digest(intent.struct_hash())))
    v, r, s = hanse.sign_permit(user, hanse.escrow, deposit, deadline)
    return hanse.chain.artifacts[hanse.escrow].encode_call(
        "open_relayed_with_permit",
        user.address,
        deposit,
        [(fund.provider, fund.signer, fund.amount)],
        0,
        deadline,
        intent_r,
        int.from_bytes(vs, "big"),
        deadline,
        v,
        r,
        s,
    )


def encode_relayed_with_authorization(hanse: Hanse, user: Key, deposit: int, fund: Fund) -> bytes:
    deadline = hanse.chain.now_s + 600
    intent = OpenIntent(user.address, deposit, (fund,), 0, deadline)
    v, r, s = hanse.sign_for_asset(user, authorize_open(intent, hanse.domain))
    funds = [(fund.provider, fund.signer, fund.amount)]
    return hanse.chain.artifacts[hanse.escrow].encode_call(
        "open_relayed_with_authorization",
        user.address,
        deposit,
        funds,
        0,
        deadline,
        v,
        r,
        s,
    )


if __name__ == "__main__":
    sys.exit(main())
