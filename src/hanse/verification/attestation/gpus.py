"""A GPU's evidence: the token of NVIDIA's attestation service, verified offline.

The service (NRAS) judges what the GPU signed against NVIDIA's reference values and answers with a
bundle of tokens: one over all, and one for each GPU whose hash is in the first. Checked here:

1. every token is ES384, signed by a key that the policy pins, of the issuer that it names, in time;
2. the overall result is true, and every GPU's token is the one whose hash it names;
3. every token carries the verifier's nonce, the one that is in the quote's report data too;
4. every check that the service reports came out well, and the model is one that is allowed.

What the GPU itself signs (SPDM measurements) is **not** verified here: that takes NVIDIA's signed
reference values for its driver and firmware, which change with each and come from a service. Such
evidence is refused as `attestation_gpu_unverifiable`; so is a token when the policy pins no keys.

Written from NVIDIA's documentation; no token of the real service was at hand, so it was tried on
tokens of the documented form that the tests sign.

Source: NVIDIA Attestation, "GPU Claims" (version 3), "Claims and Detached EAT schema"; RFC 9711.
"""

import base64
import binascii
import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.nesting import is_nested_too_deep
from hanse.verification.attestation.evidence import GPU_BYTES_MAX, GpuEvidence, decode_base64
from hanse.verification.attestation.witness import SEAL, Witness

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

NRAS = "nras"
SKEW_S = 60
"""The service's clock may be ahead of ours by so much."""

GPUS_MAX = 64
SUCCESS = ("success", "comparison-successful")
"""`measres` in version 3 of the claims, and in version 2."""

CHECKS = ("-match", "-verified", "-validated", "-parsed", "-fetched", "-available", "-check")
"""How the names of claims end that say whether a check came out well."""

NEEDED = (
    "x-nvidia-gpu-attestation-report-nonce-match",
    "x-nvidia-gpu-attestation-report-signature-verified",
    "x-nvidia-gpu-attestation-report-parsed",
)
"""Checks without which a token says nothing."""


class GpuPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose word on GPUs counts.

    Attributes:
        issuer: of the tokens, as they name it.
        keys: its public keys as PEM, P-384, that the operator has fetched and pins.
        hardware: names of models that are allowed; empty for any that the issuer attests.
        required: whether a machine without a GPU's evidence is refused.
    """

    issuer: str
    keys: tuple[str, ...]
    hardware: tuple[str, ...] = ()
    required: bool = True

    def load_keys(self) -> "list[EllipticCurvePublicKey]":
        """The keys, read.

        Raises:
            RequestError: `configuration_invalid`.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        loaded = []
        for pem in self.keys:
            try:
                key = load_pem_public_key(pem.encode())
            except (ValueError, UnsupportedAlgorithm):
                raise RequestError(
                    "configuration_invalid",
                    "the attestation policy: a key of gpu is no public key in PEM",
                ) from None
            if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
                raise RequestError(
                    "configuration_invalid", "the attestation policy: a key of gpu is not on P-384"
                )
            loaded.append(key)
        return loaded


@dataclass(frozen=True, kw_only=True)
class VerifiedGpu(Witness):
    """One GPU that the service attested for our nonce, and until when, unix seconds."""

    name: str
    hardware: str
    valid_until: int


def verify_gpus(
    evidence: GpuEvidence | None, rules: GpuPolicy | None, nonce: bytes, now_s: int
) -> tuple[VerifiedGpu, ...]:
    """Verify the GPUs' evidence, or that none is asked for.

    Raises:
        VerificationError: one of the `attestation_gpu_` codes.
    """
    if evidence is None:
        if rules is not None and rules.required:
            raise VerificationError(
                "attestation_gpu_missing", "the policy asks for a GPU's evidence"
            )
        return ()
    if rules is None:
        raise _refuse("unverifiable", "the policy pins no keys for evidence of GPUs")
    if evidence.kind != NRAS:
        raise _refuse("unverifiable", f"evidence of kind {evidence.kind!r:.40}, known is {NRAS}")
    overall_token, tokens = _read_bundle(decode_base64(evidence.evidence, GPU_BYTES_MAX, "gpu"))
    overall = _verify_token(overall_token, rules, nonce, now_s)
    if overall.get("x-nvidia-overall-att-result") is not True:
        raise _refuse("refused", "the service's overall result is not true")
    _verify_digests(overall.get("submods"), tokens)
    return tuple(
        _verify_gpu(name, _verify_token(token, rules, nonce, now_s), rules)
        for name, token in tokens.items()
    )


def _read_bundle(data: bytes) -> tuple[str, dict[str, str]]:
    """`[["JWT", overall], {"GPU-0": token, ...}]`."""
    if is_nested_too_deep(data):
        raise _refuse("invalid", "its evidence is nested too deep")
    try:
        head, tokens = msgspec.json.decode(data, type=tuple[tuple[str, str], dict[str, str]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refuse("invalid", f"its evidence cannot be read: {error}"[:200]) from None
    if head[0] != "JWT" or not 0 < len(tokens) <= GPUS_MAX:
        raise _refuse("invalid", f"its evidence holds {len(tokens)} GPUs behind {head[0]!r:.20}")
    return head[1], tokens


def _verify_token(token: str, rules: GpuPolicy, nonce: bytes, now_s: int) -> dict[str, Any]:
    """The claims of a token that a pinned key signed, for now and for our nonce."""
    head, body, signature = [*token.split("."), "", ""][:3]
    header, claims = _decode_part(head), _decode_part(body)
    if token.count(".") != 2 or header.get("alg") != "ES384" or "crit" in header:
        raise _refuse("invalid", f"a token of kind {header.get('alg')!r:.20}, known is ES384")
    if not _is_signed(f"{head}.{body}".encode(), _decode_bytes(signature), rules):
        raise _refuse("invalid", f"no pinned key of {rules.issuer} signed a token")
    if claims.get("iss") != rules.issuer:
        raise _refuse("invalid", f"a token of {claims.get('iss')!r:.80}, expected {rules.issuer}")
    begins, ends = claims.get("nbf", claims.get("iat")), claims.get("exp")
    if type(begins) is not int or type(ends) is not int:
        raise _refuse("invalid", "a token says not from when until when it is valid")
    if not begins - SKEW_S <= now_s <= ends:
        raise _refuse("expired", f"a token is valid from {begins} to {ends}, now is {now_s}")
    if str(claims.get("eat_nonce")).lower().removeprefix("0x") != nonce.hex():
        raise _refuse("unbound", f"a token has the nonce {claims.get('eat_nonce')!r:.80}")
    return claims


def _verify_digests(submods: Any, tokens: dict[str, str]) -> None:
    """Hold each GPU's token to its hash in the overall one: none more, none less."""
    named = submods if isinstance(submods, dict) else {}
    if set(named) != set(tokens):
        raise _refuse("invalid", f"it names {len(named)} GPUs and holds tokens of {len(tokens)}")
    for name, token in tokens.items():
        digest = hashlib.sha256(token.encode()).hexdigest()
        if named[name] not in (["DIGEST", [kind, digest]] for kind in ("SHA-256", "SHA256")):
            raise _refuse("invalid", f"the token of {name!r:.40} is not the one that it names")


def _verify_gpu(name: str, claims: dict[str, Any], rules: GpuPolicy) -> VerifiedGpu:
    hardware = claims.get("hwmodel")
    failed = [claim for claim in NEEDED if claims.get(claim) is not True]
    failed += [
        claim for claim, value in claims.items() if claim.endswith(CHECKS) and value is not True
    ]
    failed += [claim for claim, value in claims.items() if _is_bad_chain(value)]
    if str(claims.get("measres")).lower() not in SUCCESS:
        failed.append("measres")
    if claims.get("secboot") is not True:
        failed.append("secboot")
    if claims.get("dbgstat") != "disabled":
        failed.append("dbgstat")
    if failed:
        raise _refuse("refused", f"{name!r:.40} failed: {', '.join(failed)[:200]}")
    if not isinstance(hardware, str) or (rules.hardware and hardware not in rules.hardware):
        allowed = ", ".join(rules.hardware)
        raise _refuse("refused", f"{name!r:.40} is a {hardware!r:.60}, allowed are {allowed}")
    return VerifiedGpu(seal=SEAL, name=name, hardware=hardware, valid_until=claims["exp"])


def _is_bad_chain(value: Any) -> bool:
    """Whether it is a certificate chain's result that is not wholly good."""
    if not isinstance(value, dict) or "x-nvidia-cert-status" not in value:
        return False
    ocsp = value.get("x-nvidia-cert-ocsp-status", "good")
    return bool(value["x-nvidia-cert-status"] != "valid" or ocsp != "good")


def _is_signed(data: bytes, signature: bytes, rules: GpuPolicy) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA384

    if len(signature) != 96:
        return False
    halves = (int.from_bytes(half, "big") for half in (signature[:48], signature[48:]))
    encoded = encode_dss_signature(*halves)
    for key in rules.load_keys():
        with contextlib.suppress(InvalidSignature):
            key.verify(encoded, data, ECDSA(SHA384()))
            return True
    return False


def _decode_part(text: str) -> dict[str, Any]:
    raw = _decode_bytes(text)
    if is_nested_too_deep(raw):
        raise _refuse("invalid", "a token is nested too deep")
    try:
        claims: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refuse("invalid", "a token cannot be read") from None
    return claims


def _decode_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _refuse("invalid", "a token cannot be read") from None


def _refuse(kind: str, what: str) -> VerificationError:
    return VerificationError(f"attestation_gpu_{kind}", f"a GPU's evidence is refused: {what}")
