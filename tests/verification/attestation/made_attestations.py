"""Attestations as bytes, good ones and ones that a test has spoilt, and the verifier run on them.

Everything goes through bytes, so that the same cases run against a changed copy of the verifier
(`test_removed_checks.py`).
"""

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hanse.protocol.attestation.binding import get_report_data
from hanse.verification.attestation.event_log import read_boot_log, replay
from hanse.verification.attestation.evidence import ApplicationEvent
from tests.verification.attestation.made_platform import NOW, Platform, make_platform

DATA = Path(__file__).parent / "data"
BOOT_LOG = (DATA / "cos-113-ccel.dat").read_bytes()
PROVIDER, OTHER = "0x" + "a1" * 20, "0x" + "b2" * 20
RECEIPT_KEY = "0x" + "c3" * 20
NONCE, OTHER_NONCE = "0x" + "d4" * 32, "0x" + "e5" * 32
EVENTS = (("manifest", "11" * 32), ("engine", "22" * 4))
ISSUER = "https://attestation.example"
GPU_KEY, OTHER_GPU_KEY = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))


@dataclass
class Made:
    """A good attestation, until a case changes something of it.

    `spoil` changes the finished document; `quote_for` is what the report data binds.
    """

    platform: Platform = field(default_factory=make_platform)
    measured: dict[str, str] = field(default_factory=lambda: {"mr_td": "33" * 48})
    quote: dict[str, Any] = field(default_factory=dict)
    quote_for: dict[str, Any] = field(default_factory=dict)
    events: tuple[tuple[str, str], ...] = EVENTS
    boot_log: bytes = BOOT_LOG
    gpu: bytes = b""
    gpu_kind: str = "nras"
    policy: dict[str, Any] = field(default_factory=dict)
    image: dict[str, Any] = field(default_factory=dict)
    nonce_state: str = "issued"
    now: int = NOW
    spoil: Callable[[dict[str, Any]], None] = lambda document: None

    def build(self) -> tuple[bytes, bytes]:
        """The attestation and the policy that allows it."""
        registers = dict(zip([f"rtmr{i}" for i in range(4)], self.replay(), strict=True))
        measured = registers | self.measured
        bound = {"provider": PROVIDER, "receipt_key": RECEIPT_KEY, "nonce": NONCE, "gpu": self.gpu}
        bound |= self.quote_for
        report_data = get_report_data(
            bound["provider"],
            bound["receipt_key"],
            bytes.fromhex(bound["nonce"][2:]),
            bound["gpu"],
        )
        document = {
            "nonce": NONCE,
            "provider": PROVIDER,
            "receipt_key": RECEIPT_KEY,
            "quote": pack(self.platform.make_quote(report_data, measured=measured, **self.quote)),
            "collateral": msgspec.to_builtins(self.platform.make_collateral()),
            "boot_log": pack(self.boot_log),
            "events": [{"name": name, "payload": payload} for name, payload in self.events],
            "gpu": {"kind": self.gpu_kind, "evidence": pack(self.gpu)} if self.gpu else None,
        }
        self.spoil(document)
        allowed = {name: measured[name] for name in ("mr_td", "rtmr0", "rtmr1", "rtmr2")}
        events = {name: [payload] for name, payload in EVENTS}
        image = {"name": "made", **allowed, "rtmr3": "events", "events": events} | self.image
        policy = {"images": [image], "root": make_platform().root.pem()} | self.policy
        return json.dumps(document).encode(), json.dumps(policy).encode()

    def replay(self) -> tuple[str, ...]:
        events = tuple(ApplicationEvent(*event) for event in EVENTS)
        return replay(read_boot_log(BOOT_LOG), events)


def run(verifier: ModuleType, made: Made, built: tuple[bytes, bytes] | None = None) -> Any:
    """What a verifier says of an attestation: an `Attestation`, or its error is raised."""
    evidence, policy = built or made.build()
    clock = [float(made.now)]
    nonces = verifier.NonceBook(lambda: clock[0], lambda size: bytes.fromhex(NONCE[2:])[:size])
    if made.nonce_state != "unknown":
        nonces.issue()
    if made.nonce_state == "used":
        nonces.redeem(NONCE)
    if made.nonce_state == "expired":
        clock[0] += 121
    return verifier.verify_attestation(
        verifier.decode_evidence(evidence),
        verifier.Expected(PROVIDER, RECEIPT_KEY, NONCE),
        verifier.decode_policy(policy),
        nonces,
        made.now,
    )


def pack(data: bytes) -> str:
    return base64.b64encode(data).decode()


def flip(data: bytes, at: int, bit: int = 1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= bit
    return bytes(changed)


def split_log(log: bytes) -> list[bytes]:
    """A boot log's header and events."""
    (size,) = struct.unpack_from("<I", log, 28)
    at, found = 32 + size, [log[: 32 + size]]
    while at < len(log):
        (size,) = struct.unpack_from("<I", log, at + 62)
        found.append(log[at : at + 66 + size])
        at += 66 + size
    return found


# tokens as NVIDIA's service gives them


def make_token(claims: dict[str, Any], key: Any = GPU_KEY, header: Any = None) -> str:
    head = header or {"alg": "ES384", "typ": "JWT", "kid": "made"}
    signed = ".".join(encode_url(json.dumps(part).encode()) for part in (head, claims))
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA384())))
    return signed + "." + encode_url(r.to_bytes(48, "big") + s.to_bytes(48, "big"))


def encode_url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_claims(**more: Any) -> dict[str, Any]:
    times = {"iat": NOW - 5, "nbf": NOW - 5, "exp": NOW + 1_800}
    return {"iss": ISSUER, "eat_nonce": NONCE[2:], **times, **more}


CHAIN = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
GPU_CLAIMS = {
    "measres": "success",
    "secboot": True,
    "dbgstat": "disabled",
    "hwmodel": "GH100 A01 GSP BROM",
    "x-nvidia-gpu-arch-check": True,
    "x-nvidia-gpu-attestation-report-parsed": True,
    "x-nvidia-gpu-attestation-report-nonce-match": True,
    "x-nvidia-gpu-attestation-report-signature-verified": True,
    "x-nvidia-gpu-attestation-report-cert-chain": CHAIN,
    "x-nvidia-mismatch-measurement-records": None,
}


def make_bundle(
    *,
    overall: dict[str, Any] | None = None,
    of_gpu: dict[str, Any] | None = None,
    key: Any = GPU_KEY,
    gpu_key: Any = GPU_KEY,
    header: Any = None,
    swap: Callable[[dict[str, str]], dict[str, str]] = lambda tokens: tokens,
) -> bytes:
    """A bundle of two GPUs; `swap` changes the tokens after the overall one has named them."""
    claims = make_claims(**(GPU_CLAIMS | (of_gpu or {})))
    tokens = {f"GPU-{i}": make_token({**claims, "ueid": str(i)}, gpu_key) for i in range(2)}
    digests = {
        name: ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]
        for name, token in tokens.items()
    }
    head = {"x-nvidia-overall-att-result": True, "submods": digests} | (overall or {})
    token = make_token(make_claims(**head), key, header)
    return json.dumps([["JWT", token], swap(tokens)]).encode()


def make_gpu_policy(**more: Any) -> dict[str, Any]:
    pem = GPU_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {"gpu": {"issuer": ISSUER, "keys": [pem.decode()], **more}}
