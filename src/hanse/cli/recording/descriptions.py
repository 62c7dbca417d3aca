"""A checked receipt file as people and programs read it, for `hanse receipts verify`."""

from typing import Any

from hanse.cli.moments import format_time
from hanse.cli.network import load_network
from hanse.cli.session import Session
from hanse.protocol.errors import HanseError
from hanse.protocol.wire import receipt_to_json
from hanse.sdk.receipt_file import VerifiedReceipt


def describe_receipt(session: Session, found: VerifiedReceipt) -> tuple[tuple[str, object], ...]:
    """Names and values, one below the other."""
    receipt, request = found.receipt.receipt, found.voucher.request
    return (
        ("verified", "every signature, hash and price fits"),
        ("user", f"{receipt.user}, by signer {receipt.signer}"),
        ("provider", receipt.provider),
        ("receipt key", f"{found.receipt_key} (compare with the Registry)"),
        ("request", request.request_id),
        ("model", f"{found.offer.model} ({found.offer.quantisation})"),
        (
            "tokens",
            f"{receipt.usage.input_tokens + receipt.usage.cached_tokens} in, "
            f"{receipt.usage.output_tokens} out",
        ),
        ("fee", _format_fee(session, found)),
        ("ended", f"{receipt.finish_reason.name.lower()}, {format_time(receipt.finished_at)}"),
        ("hash of the request", request.body_hash),
        ("hash of the answer", receipt.response_hash),
        ("contracts", f"chain {found.domain.chain_id}, Escrow {found.domain.escrow}"),
    )


def to_document(found: VerifiedReceipt) -> dict[str, Any]:
    """For a program."""
    return {
        "verified": True,
        "receipt_key": found.receipt_key,
        "chain_id": found.domain.chain_id,
        "escrow": found.domain.escrow,
        "model": found.offer.model,
        "request_id": found.voucher.request.request_id,
        "body_hash": found.voucher.request.body_hash,
        "maximum_fee": str(found.voucher.request.maximum_fee),
        "receipt": receipt_to_json(found.receipt),
    }


def _format_fee(session: Session, found: VerifiedReceipt) -> str:
    """In the asset's units if this home knows that market, else in base units."""
    fee = found.receipt.receipt.fee
    try:
        network = load_network(session.home)
    except HanseError:
        return f"{fee} base units"
    ours = (network.deployment.chain_id, network.deployment.escrow)
    if ours != (found.domain.chain_id, found.domain.escrow):
        return f"{fee} base units"
    return network.units.format(fee)
