"""A receipt's opening, fetched from the broker that committed to it.

The signer of the sub-account asks with a signed query, as for receipts and answers. A broker that
gives none is no cheat (it may be gone, or the audit window over), but it is noted: audits that
cannot be made count in a provider's record.
"""

import time

from hanse.protocol.commitments.tree import OPENING_BYTES_MAX, OPENINGS_PATH
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, RequestError, TransientError, VerificationError
from hanse.protocol.limits import QUERY_VALID_S_MAX
from hanse.protocol.messages import Query
from hanse.protocol.signatures import DigestSigner
from hanse.protocol.wire import encode_query_header
from hanse.sdk.purchase.refusals import read_refusal
from hanse.sdk.transport import Transport, read_body
from hanse.sdk.transport.http import HttpTransport
from hanse.settlement.books.voucher_records import StoredVoucher

SILENCE_S = 10.0
"""A broker answers from its books at once."""


async def ask_opening(
    domain: Domain, voucher: StoredVoucher, signer: DigestSigner, *, reaches_private: bool
) -> bytes:
    """The opening of a request's commitment, over a connection of its own.

    Args:
        domain: of all signatures.
        voucher: of the request.
        signer: of the sub-account.
        reaches_private: whether brokers at loopback and private addresses are called.

    Raises:
        RequestError: `not_found` if its broker gives none.
        TransientError: it does not answer.
    """
    transport = HttpTransport(reaches_private=reaches_private)
    try:
        return await fetch_opening(transport, domain, voucher, signer)
    except VerificationError as error:
        raise RequestError("not_found", f"the broker gave no opening: {error.message}") from None
    finally:
        await transport.close()


async def fetch_opening(
    transport: Transport, domain: Domain, voucher: StoredVoucher, signer: DigestSigner
) -> bytes:
    """The opening of one request's commitment, as it came.

    The caller still owes: that it leads to the receipt's root (`decode_opening`).

    Raises:
        RequestError: `not_found` if the broker keeps none; `usage` if the key is not the voucher's
            signer.
        TransientError: no endpoint answers.
    """
    if signer.address != voucher.signed.signer:
        raise RequestError(
            "usage",
            f"request {voucher.signed.request.request_id} was signed by {voucher.signed.signer}, "
            f"this key is {signer.address}: name the signer's key with --signer",
        )
    failure: HanseError = TransientError("provider_unreachable", "its offer names no endpoint")
    for endpoint in voucher.offer.offer.endpoints:
        try:
            return await _fetch(transport, endpoint.rstrip("/"), domain, voucher, signer)
        except TransientError as error:
            failure = error
    raise failure


async def _fetch(
    transport: Transport,
    endpoint: str,
    domain: Domain,
    voucher: StoredVoucher,
    signer: DigestSigner,
) -> bytes:
    names, request_id = voucher.sub_account, voucher.signed.request.request_id
    deadline = int(time.time()) + QUERY_VALID_S_MAX // 2
    query = Query(names.user, names.provider, names.signer, 0, deadline)
    signature = signer.sign_digest(domain.digest(query.struct_hash()))
    headers = {"authorization": encode_query_header(query, signature)}
    url = f"{endpoint}{OPENINGS_PATH}{request_id}"
    response = await transport.send("GET", url, headers, b"", silence_s=SILENCE_S)
    try:
        body = await read_body(response, OPENING_BYTES_MAX)
    finally:
        response.close()
    if response.status != 200:
        raise read_refusal(names.provider, response.status, body, None).error
    return body
