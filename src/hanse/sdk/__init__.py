"""The user's side as a library: find a provider, pay it by the token, check what it did.

    async with Hanse.open(settings) as hanse:
        answer = await hanse.chat("smollm2", [{"role": "user", "content": "Hello"}])
        print(answer.text, answer.receipt.fee)

What a caller needs:

    Hanse.open(settings)              async context manager; resumes what was cut off, discovers
    hanse.request(path, body, needs=None) -> Answer      the low level, as the gateway uses it
    hanse.chat(model, messages, stream=False, needs=None, **params) -> Completion | CompletionStream
    hanse.completions(model, prompt, stream=False, needs=None, **params) -> the same
    hanse.embeddings(model, input, needs=None, **params) -> Completion
    hanse.discover() -> DiscoveryReport                  read Registry, fetch and verify offers now
    hanse.get_offers() -> list[MarketOffer]              verified offers with their health
    hanse.get_models() -> dict                           OpenAI's list, for `/v1/models`
    hanse.resume(adopt=False) -> list[ResumeReport]      receipts of requests whose end is unknown
    hanse.fetch_answer(request_id) -> FetchedAnswer      the sealed bytes of what was paid for
    hanse.get_receipts(limit=100, before=None, offset=0) -> list[StoredReceipt]     newest first
    hanse.export_receipt(request_id) -> dict             for `verify_receipt_file`, as JSON
    hanse.get_exposures() -> list[SubAccountBook]        spent, in flight, claimable at most
    hanse.read_money() -> Money                          every unit of this wallet, by place
    hanse.get_disputes() -> list[StoredDispute]          cheats found, and what became of each
    hanse.look_for_cheats()                              check claims and receipts now
    hanse.account                                        Account: deposit, open, fund, refund ...
    hanse.wait_idle()                                    until the work behind has ended
    HanseSync(settings)                                  the same without async
    verify_receipt_file(path) -> VerifiedReceipt         offline: no chain, no database

`Answer`, what `request` returns once the provider's head has come (status 200, always):

    answer.provider, answer.offer, answer.voucher, answer.request_id, answer.is_stream
    await answer.read() -> bytes         whole body, verified and acknowledged (not for streams)
    async for frame in answer.frames()   raw `data: ...` frames as bytes, untouched, `[DONE]` last;
                                         receipt comments and keep-alives are taken out. `[DONE]` is
                                         handed on only after the receipt was verified and stored
    answer.receipt -> CheckedReceipt | None      after the end; `.signed`, `.fee`, `.usage`,
                                         `.verification`
    await answer.close()                 hang up; the receipt of the prefix is fetched behind
    async with answer: ...               the same as close() at the end of the block

`Needs` narrows the choice: `max_fee`, `max_prices`, `verifiability_min`, `context_tokens`,
`providers`.

Errors are `hanse.protocol.errors`: RequestError (4xx; `insufficient_balance` with amounts),
TransientError (429, 503: no healthy provider), VerificationError (502: the provider was dishonest
or a middleman interfered; it is marked and not asked again for a while).

The user's side never loads a model and meets the provider only on the wire.

client       Hanse, HanseParts         chain_view   what is known of the chain, from events
sync         HanseSync                 discovery    Registry to verified offers
settings     Settings                  account      moving money; money: where it is
disputes/    cheats found, and proven on the chain
completion   decoded answers           receipt_file, record_file   files that anyone can check
purchase/    choose, sign, send, check, count, resume
transport/   the seam to the network

Names are looked up when they are first asked for: a gateway of one's own servers, and keys, need
none of the chain's libraries, which take half a second to import.

Source: docs/decisions/0009-user-side.md, docs/protocol.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanse.market import Needs as Needs
    from hanse.sdk.account import Account as Account
    from hanse.sdk.chain_view import FixedChain as FixedChain
    from hanse.sdk.chain_view import JournalEntry as JournalEntry
    from hanse.sdk.client import Hanse as Hanse
    from hanse.sdk.client import HanseParts as HanseParts
    from hanse.sdk.client import MarketOffer as MarketOffer
    from hanse.sdk.completion import Completion as Completion
    from hanse.sdk.completion import CompletionStream as CompletionStream
    from hanse.sdk.discovery import DiscoveryReport as DiscoveryReport
    from hanse.sdk.money import Money as Money
    from hanse.sdk.money import Place as Place
    from hanse.sdk.purchase.answer import Answer as Answer
    from hanse.sdk.purchase.checking import CheckedReceipt as CheckedReceipt
    from hanse.sdk.purchase.resume import FetchedAnswer as FetchedAnswer
    from hanse.sdk.purchase.resume import ResumeReport as ResumeReport
    from hanse.sdk.receipt_file import VerifiedReceipt as VerifiedReceipt
    from hanse.sdk.receipt_file import verify_receipt_document as verify_receipt_document
    from hanse.sdk.receipt_file import verify_receipt_file as verify_receipt_file
    from hanse.sdk.settings import Settings as Settings
    from hanse.sdk.sync import HanseSync as HanseSync
    from hanse.sdk.transport import TransportLimits as TransportLimits
    from hanse.settlement.books.voucher_records import StoredReceipt as StoredReceipt
    from hanse.settlement.books.voucher_records import SubAccountBook as SubAccountBook
    from hanse.settlement.books.voucher_records import Verification as Verification

_NAMES_BY_MODULE = {
    "hanse.market": ("Needs",),
    "hanse.sdk.account": ("Account",),
    "hanse.sdk.chain_view": ("FixedChain", "JournalEntry"),
    "hanse.sdk.client": ("Hanse", "HanseParts", "MarketOffer"),
    "hanse.sdk.completion": ("Completion", "CompletionStream"),
    "hanse.sdk.discovery": ("DiscoveryReport",),
    "hanse.sdk.money": ("Money", "Place"),
    "hanse.sdk.purchase.answer": ("Answer",),
    "hanse.sdk.purchase.checking": ("CheckedReceipt",),
    "hanse.sdk.purchase.resume": ("FetchedAnswer", "ResumeReport"),
    "hanse.sdk.receipt_file": (
        "VerifiedReceipt",
        "verify_receipt_document",
        "verify_receipt_file",
    ),
    "hanse.sdk.settings": ("Settings",),
    "hanse.sdk.sync": ("HanseSync",),
    "hanse.sdk.transport": ("TransportLimits",),
    "hanse.settlement.books.voucher_records": (
        "StoredReceipt",
        "SubAccountBook",
        "Verification",
    ),
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


__all__ = list(_MODULES)  # mypy takes `import X as X` above as public
