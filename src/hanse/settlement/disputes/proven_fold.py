"""What Escrow's events say of proofs that it accepted against the providers of one user. Pure.

| document | from |
| --- | --- |
| `proven:<block>:<index>` | Escrow.OverclaimProven, EquivocationProven |

A proof counts whoever sent it: a dispute is over once the chain shows one that is at least as good.

Source: `Escrow.vy`.
"""

from collections.abc import Iterator, Mapping

import msgspec

from hanse.chain import Event
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.disputes.findings import Finding, Kind

PROVEN_PREFIX = "proven:"

_KINDS = {"OverclaimProven": Kind.OVERCLAIM, "EquivocationProven": Kind.EQUIVOCATION}


class Proven(msgspec.Struct, frozen=True):
    """One accepted proof. Amounts are text in the document, since JSON's readers lose digits.

    Attributes:
        kind: what was proven.
        provider, signer: of the sub-account.
        sequence: of the receipts that proved it.
        claimed: of an overclaim, what was claimed when it was proven; "0" for an equivocation.
        cumulative_fee: of an overclaim, what the receipt said; "0" for an equivocation.
        loss: base units that the proof showed, before any compensation.
        compensation: base units paid to the user's account.
        reporter: who sent it.
        transaction_hash: with what.
    """

    kind: Kind
    provider: Address
    signer: Address
    sequence: str
    claimed: str
    cumulative_fee: str
    loss: str
    compensation: str
    reporter: Address
    transaction_hash: Hash32

    def covers(self, finding: Finding) -> bool:
        """Whether this proof took from the provider all that the finding could."""
        receipt = finding.receipts[0].receipt
        same = (finding.kind, receipt.provider, receipt.signer)
        if (self.kind, self.provider, self.signer) != same:
            return False
        if finding.kind is Kind.OVERCLAIM:
            return (
                int(self.claimed) >= finding.claimed.amount
                and int(self.cumulative_fee) <= receipt.cumulative_fee
            )
        return int(self.sequence) == receipt.sequence and int(self.loss) >= finding.loss


def fold_proven(event: Event, user: Address) -> Iterator[tuple[str, bytes | None]]:
    """The document of one event, if it is a proof about this user's sub-account."""
    kind, fields = _KINDS.get(event.name), event.fields
    if kind is None or event.contract != "Escrow" or fields.get("user") != user:
        return
    proven = Proven(
        kind,
        fields["provider"],
        fields["signer"],
        str(fields["sequence"]),
        str(fields.get("claimed", 0)),
        str(fields.get("cumulative_fee", 0)),
        str(fields["loss"]),
        str(fields["compensation"]),
        fields["reporter"],
        event.transaction_hash,
    )
    key = f"{PROVEN_PREFIX}{event.block_number:012d}:{event.log_index:06d}"
    yield key, msgspec.json.encode(proven)


def read_proven(documents: Mapping[str, bytes]) -> list[Proven]:
    """Every proof that the documents hold, oldest first."""
    keys = sorted(key for key in documents if key.startswith(PROVEN_PREFIX))
    return [msgspec.json.decode(documents[key], type=Proven) for key in keys]
