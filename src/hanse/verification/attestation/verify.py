"""The whole check: from bytes of a stranger to a machine that is known.

    attestation = verify_attestation(evidence, expected, policy, nonces, now_s)

There is one way to an `Attestation`, and it goes through every step. It raises at the first that
fails, with that step's code:

1. the nonce is one of ours, in time, and used up;
2. the attestation names our nonce, the offer's provider and the registered receipt key;
3. the quote leads to the root, at this time (`quotes`);
4. its report data binds nonce, provider, receipt key and the GPU's evidence;
5. platform and collateral are what the policy allows (`policy`);
6. the event log replays to the registers (`event_log`), if one came or the policy asks for it;
7. what was measured is an image of the policy;
8. the GPUs' evidence is good, if any came or the policy asks for it (`gpus`).

What it shows: at this time the receipt key was in the hands of a machine that runs an image of the
policy on Intel's hardware. Not: that the image is free of faults, that nobody has the machine on a
bench with a probe on its memory, or that the wire to it is private.
"""

from dataclasses import dataclass

from hanse.protocol.attestation.binding import get_report_data
from hanse.protocol.errors import VerificationError
from hanse.protocol.signatures import Address, Hash32, to_bytes
from hanse.verification.attestation.event_log import VerifiedLog, verify_event_log
from hanse.verification.attestation.evidence import (
    BOOT_LOG_BYTES_MAX,
    GPU_BYTES_MAX,
    QUOTE_BYTES_MAX,
    Evidence,
    decode_base64,
)
from hanse.verification.attestation.gpus import VerifiedGpu, verify_gpus
from hanse.verification.attestation.nonces import NonceBook
from hanse.verification.attestation.policy import Policy, verify_image, verify_platform
from hanse.verification.attestation.quotes import VerifiedQuote, verify_quote
from hanse.verification.attestation.witness import SEAL, Witness


@dataclass(frozen=True)
class Expected:
    """Of whom an attestation is asked, and with which nonce; the keys are the Registry's."""

    provider: Address
    receipt_key: Address
    nonce: Hash32


@dataclass(frozen=True, kw_only=True)
class Attestation(Witness):
    """A machine that holds a receipt key and runs what the policy allows.

    Attributes:
        expected: provider, receipt key and nonce that it is bound to.
        image: the policy's name of what runs.
        quote, log, gpus: what was verified; `log` is None where none came and none was asked for.
        valid_until: when it has to be verified again, unix seconds.
    """

    expected: Expected
    image: str
    quote: VerifiedQuote
    log: VerifiedLog | None
    gpus: tuple[VerifiedGpu, ...]
    valid_until: int


def verify_attestation(
    evidence: Evidence, expected: Expected, policy: Policy, nonces: NonceBook, now_s: int
) -> Attestation:
    """Verify everything; see the module.

    Raises:
        VerificationError: the `attestation_` code of what is wrong.
        RequestError: `configuration_invalid` if dcap-qvl is not installed.
    """
    nonces.redeem(expected.nonce)
    _verify_names(evidence, expected)
    quote = verify_quote(
        decode_base64(evidence.quote, QUOTE_BYTES_MAX, "quote"),
        evidence.collateral,
        now_s,
        policy.get_root_der(),
    )
    _verify_binding(evidence, expected, quote)
    verify_platform(policy, quote)
    log = _verify_log(evidence, policy, quote)
    image = verify_image(policy, quote, log)
    gpus = verify_gpus(evidence.gpu, policy.gpu, to_bytes(expected.nonce), now_s)
    return Attestation(
        seal=SEAL,
        expected=expected,
        image=image,
        quote=quote,
        log=log,
        gpus=gpus,
        valid_until=min(
            now_s + policy.attestation_age_max_s,
            quote.collateral_expires_at,
            quote.collateral_issued_at + policy.collateral_age_max_s,
            *(gpu.valid_until for gpu in gpus),
        ),
    )


def _verify_names(evidence: Evidence, expected: Expected) -> None:
    """What it says of itself; `_verify_binding` is the proof, this says which part is wrong."""
    rows = (
        ("attestation_nonce_mismatch", "nonce", evidence.nonce, expected.nonce),
        ("attestation_provider_mismatch", "provider", evidence.provider, expected.provider),
        ("attestation_key_mismatch", "receipt key", evidence.receipt_key, expected.receipt_key),
    )
    for code, name, named, wanted in rows:
        if named.lower() != wanted.lower():
            raise VerificationError(code, f"it names the {name} {named}, expected was {wanted}")


def _verify_binding(evidence: Evidence, expected: Expected, quote: VerifiedQuote) -> None:
    gpu = evidence.gpu
    bound = get_report_data(
        expected.provider,
        expected.receipt_key,
        to_bytes(expected.nonce),
        decode_base64(gpu.evidence, GPU_BYTES_MAX, "gpu") if gpu is not None else b"",
    )
    if quote.body.report_data != bound:
        raise VerificationError(
            "attestation_unbound",
            f"the quote's report data is {quote.body.report_data.hex()}, for this key, provider, "
            f"nonce and GPU evidence it would be {bound.hex()}",
        )


def _verify_log(evidence: Evidence, policy: Policy, quote: VerifiedQuote) -> VerifiedLog | None:
    boot_log = decode_base64(evidence.boot_log, BOOT_LOG_BYTES_MAX, "boot log")
    if policy.boot_log == "required" and not boot_log:
        raise VerificationError("attestation_log_missing", "the policy asks for the boot log")
    if not boot_log and not evidence.events:
        return None
    return verify_event_log(boot_log, evidence.events, quote)
