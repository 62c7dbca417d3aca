"""A quote held to its root: every signature, certificate, list and date between the two.

    quote = verify_quote(raw, collateral, now_s)       a VerifiedQuote, or an error with its code

1. its form: lengths, kind, nothing behind it (`quote_layout`);
2. by dcap-qvl, at the stated time: TCB info and QE identity under their signatures and chains, the
   platform's chain, revocation of all of them, the quoting enclave's report under the platform's
   key and against its identity, the attestation key in that report, the quote under that key, the
   TCB level, and that the machine is closed (no debugging, profiling or migration);
3. what dcap-qvl leaves out (`collateral`).

That says what runs where, not whether that is good: `policy`, `event_log` and `verify` judge it.
The time is the caller's; nothing here reads a clock or the network.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from hanse.protocol.errors import RequestError, VerificationError
from hanse.verification.attestation.collateral import (
    check_size,
    get_issued_at,
    verify_pce_id,
    verify_pck_crl_chain,
    verify_roles,
)
from hanse.verification.attestation.evidence import Collateral, malformed
from hanse.verification.attestation.quote_layout import Measurements, QuoteBody, read_quote
from hanse.verification.attestation.refusals import explain_refusal
from hanse.verification.attestation.roots import INTEL_ROOT_DER, INTEL_ROOT_ID, get_root_id
from hanse.verification.attestation.witness import SEAL, Witness

MISSING_EXTRA = "attestation needs dcap-qvl: pip install 'hanse[attest]'"


@dataclass(frozen=True, kw_only=True)
class VerifiedQuote(Witness):
    """A quote that leads to its root.

    Attributes:
        body: version, attributes, measurements and report data, all under the quote's signature.
        root_id: of the root that it leads to.
        fmspc: the kind of platform, as Intel names it.
        ppid: names the single processor; the same in every quote of it.
        tcb_status: platform, TDX module and quoting enclave taken together.
        advisories: Intel's security advisories that apply.
        tcb_evaluation: number of the data that the TCB was judged by; it rises.
        collateral_issued_at, collateral_expires_at: of the oldest part, of the first to end.
        verified_at: for which time all this was checked. Times are unix seconds.
    """

    body: QuoteBody
    root_id: str
    fmspc: str
    ppid: str
    tcb_status: str
    advisories: tuple[str, ...]
    tcb_evaluation: int
    collateral_issued_at: int
    collateral_expires_at: int
    verified_at: int

    @property
    def measurements(self) -> Measurements:
        """What runs there."""
        return self.body.measurements

    @property
    def is_of_intel(self) -> bool:
        """Whether it leads to Intel's root, and not to one of a policy's own."""
        return self.root_id == INTEL_ROOT_ID


class _Tcb(msgspec.Struct):
    status: str
    advisory_ids: list[str]
    eval_data_number: int


class _Pck(msgspec.Struct):
    fmspc: list[int]
    pce_id: list[int]
    ppid: list[int]


class _Platform(msgspec.Struct):
    pck: _Pck


class _Claims(msgspec.Struct):
    tcb: _Tcb
    platform: _Platform
    earliest_expiration_date: int


def verify_quote(
    quote: bytes, collateral: Collateral, now_s: int, root_der: bytes = INTEL_ROOT_DER
) -> VerifiedQuote:
    """Verify a quote for a time, to a root; see the module.

    Args:
        quote: as the machine gave it.
        collateral: Intel's documents on its platform.
        now_s: unix seconds; the caller's trusted time.
        root_der: what it must lead to. Anything but Intel's is a root of one's own, for tests; the
            result names it.

    Raises:
        VerificationError: an `attestation_` code for each thing that can be wrong.
        RequestError: `configuration_invalid` if dcap-qvl is not installed.
    """
    body = read_quote(quote)
    claims = _verify_signatures(quote, check_size(collateral), now_s, root_der)
    verify_roles(collateral, collateral.pck_certificate_chain or _get_pck_chain(quote))
    verify_pck_crl_chain(collateral, root_der)
    verify_pce_id(collateral, bytes(claims.platform.pck.pce_id))
    return VerifiedQuote(
        seal=SEAL,
        body=body,
        root_id=get_root_id(root_der),
        fmspc=bytes(claims.platform.pck.fmspc).hex(),
        ppid=bytes(claims.platform.pck.ppid).hex(),
        tcb_status=claims.tcb.status,
        advisories=tuple(claims.tcb.advisory_ids),
        tcb_evaluation=claims.tcb.eval_data_number,
        collateral_issued_at=get_issued_at(collateral),
        collateral_expires_at=claims.earliest_expiration_date,
        verified_at=now_s,
    )


def import_qvl() -> Any:
    """The package that verifies signatures, imported when it is used.

    Raises:
        RequestError: `configuration_invalid`.
    """
    try:
        import dcap_qvl
    except ImportError:
        raise RequestError("configuration_invalid", MISSING_EXTRA) from None
    return dcap_qvl


def _verify_signatures(quote: bytes, collateral: str, now_s: int, root_der: bytes) -> _Claims:
    """By dcap-qvl. Its policy is `claims_only`: what is allowed our own policy says."""
    qvl = import_qvl()
    try:
        parsed = qvl.QuoteCollateralV3.from_json(collateral)
        verifier = qvl.QuoteVerifier(root_der)
        claims = verifier.verify_with_policy(
            quote, parsed, now_s, qvl.QuotePolicy.claims_only(now_s)
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise _explain(qvl, error, quote, collateral, now_s, root_der) from None
    try:
        return msgspec.json.decode(claims.to_json(), type=_Claims)
    except msgspec.DecodeError as error:
        raise malformed(f"dcap-qvl's claims: {error}"[:200]) from None


def _explain(
    qvl: Any, error: Exception, quote: bytes, collateral: str, now_s: int, root_der: bytes
) -> VerificationError:
    """The refusal in our terms; the one-shot call of dcap-qvl names the cause behind it."""
    try:
        parsed = qvl.QuoteCollateralV3.from_json(collateral)
        qvl.verify_with_root_ca(quote, parsed, root_der, now_s)
    except (ValueError, TypeError, OverflowError) as detailed:
        return explain_refusal(str(detailed))
    return explain_refusal(str(error))


def _get_pck_chain(quote: bytes) -> str:
    pem = import_qvl().parse_quote(quote).cert_chain_pem_bytes()
    assert pem is not None  # dcap-qvl has verified it, as there is none in the collateral
    return bytes(pem).decode("ascii", "replace")
