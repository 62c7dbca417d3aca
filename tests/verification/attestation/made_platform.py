"""A TDX platform that the tests make, keys and all, under a root of their own.

No hardware: every key that a processor, its quoting enclave or Intel would hold is here, so that a
test can sign whatever it needs, such as a quote with the debug bit set. Nothing of it leads to
Intel's root; the real quotes of `data/` do.
"""

import hashlib
import json
import struct
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from hanse.verification.attestation import Collateral

NOW = 1_780_000_000
"""The time of the tests: May 2026."""

DAY_S = 86_400
FMSPC, PCE_ID = bytes.fromhex("90c06f000000"), b"\x00\x00"
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
SEPT_VE_DISABLE = 1 << 28
TCB_SVN = bytes([5, 1, 2] + [0] * 13)
CPU_SVN = bytes([3] * 16)
QE_SIGNER = bytes([7] * 32)
SGX = "1.2.840.113741.1.13.1"


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    length = bytes([size]) if size < 128 else bytes([0x80 | len(digits)]) + digits
    return bytes([tag]) + length + content


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    out = [first * 40 + second]
    for number in rest:
        groups = [number & 127]
        while number := number >> 7:
            groups.append(number & 127 | 128)
        out += reversed(groups)
    return der(6, bytes(out))


def sgx_extension(fmspc: bytes, pce_id: bytes, cpu_svn: bytes, pce_svn: int) -> bytes:
    def row(name: str, value: bytes) -> bytes:
        return der(0x30, oid(f"{SGX}.{name}") + value)

    tcb = row("2.17", der(2, bytes([pce_svn]))) + row("2.18", der(4, cpu_svn))
    return der(
        0x30,
        row("1", der(4, bytes(range(16))))
        + row("2", der(0x30, tcb))
        + row("3", der(4, pce_id))
        + row("4", der(4, fmspc))
        + row("5", der(0x0A, b"\x00")),
    )


@dataclass
class Authority:
    """A key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def sign(self, data: bytes) -> bytes:
        return sign_raw(self.key, data)

    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def sign_raw(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def issue(
    name: str,
    issuer: Authority | None,
    *,
    is_ca: bool,
    extension: bytes = b"",
    begins: int = NOW - 900 * DAY_S,
    ends: int = NOW + 8_000 * DAY_S,  # tests with a real clock use them too
) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(begins, UTC))
        .not_valid_after(datetime.fromtimestamp(ends, UTC))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(
            x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False),
            critical=True,
        )
    )
    if extension:
        raw = x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX), extension)
        made = made.add_extension(raw, critical=False)
    return Authority(key, made.sign(issuer.key if issuer else key, SHA256()))


def revoke(
    issuer: Authority, revoked: list[Authority], ends: int, begins: int = NOW - 3 * DAY_S
) -> str:
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(datetime.fromtimestamp(begins, UTC))
        .next_update(datetime.fromtimestamp(ends, UTC))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    for authority in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(authority.certificate.serial_number)
        since = datetime.fromtimestamp(NOW - 2 * DAY_S, UTC)
        made = made.add_revoked_certificate(entry.revocation_date(since).build())
    return made.sign(issuer.key, SHA256()).public_bytes(Encoding.DER).hex()


@dataclass
class Platform:
    """The keys of one platform and of who vouches for it, and what a test may say of it.

    `tcb` and `qe` change fields of the TCB info and the QE identity before they are signed; what is
    in `revoked` stands on the list of its issuer.
    """

    root: Authority
    pck_ca: Authority
    pck: Authority
    signing: Authority
    attestation_key: ec.EllipticCurvePrivateKey
    tcb: dict[str, Any] = field(default_factory=dict)
    qe: dict[str, Any] = field(default_factory=dict)
    revoked: tuple[str, ...] = ()
    crl_ends: int = NOW + 27 * DAY_S

    @property
    def root_der(self) -> bytes:
        return self.root.certificate.public_bytes(Encoding.DER)

    def at_present(self) -> "Platform":
        """The same with collateral that is valid by this machine's clock, for whole processes."""
        ends = int(time.time()) + 27 * DAY_S
        return self.changed(
            tcb=self.tcb | {"nextUpdate": at(ends)},
            qe=self.qe | {"nextUpdate": at(ends)},
            crl_ends=ends,
        )

    def changed(self, **changes: Any) -> "Platform":
        return replace(self, **changes)

    def make_collateral(self) -> Collateral:
        tcb_info = dump({**TCB_INFO, **self.tcb})
        identity = dump({**QE_IDENTITY, **self.qe})
        signing_chain = self.signing.pem() + self.root.pem()
        named = {"pck_ca": self.pck_ca, "signing": self.signing, "root": self.root}
        of_root = [named[name] for name in self.revoked if name in named]
        of_pck_ca = [self.pck] if "pck" in self.revoked else []
        return Collateral(
            pck_crl_issuer_chain=self.pck_ca.pem() + self.root.pem(),
            root_ca_crl=revoke(self.root, of_root, self.crl_ends),
            pck_crl=revoke(self.pck_ca, of_pck_ca, self.crl_ends),
            tcb_info_issuer_chain=signing_chain,
            tcb_info=tcb_info,
            tcb_info_signature=self.signing.sign(tcb_info.encode()).hex(),
            qe_identity_issuer_chain=signing_chain,
            qe_identity=identity,
            qe_identity_signature=self.signing.sign(identity.encode()).hex(),
        )

    def make_quote(
        self,
        report_data: bytes,
        *,
        measured: dict[str, str] | None = None,
        attributes: int = SEPT_VE_DISABLE,
        version: int = 4,
        qe_attributes: int = 0x11,
        qe_svn: int = 4,
        service_td: bytes = bytes(48),
    ) -> bytes:
        """A quote over registers by name (`mr_td`, `rtmr0` ..), the rest being zeros."""
        registers = measured or {}

        def get(name: str) -> bytes:
            return bytes.fromhex(registers.get(name, "00" * 48))

        header = struct.pack("<HHI", version, 2, 0x81) + bytes(4) + VENDOR + bytes(20)
        body = TCB_SVN + get("mr_seam") + bytes(48) + bytes(8)
        body += struct.pack("<Q", attributes) + bytes(8)
        for name in ("mr_td", "mr_config_id", "mr_owner", "mr_owner_config"):
            body += get(name)
        body += b"".join(get(f"rtmr{i}") for i in range(4)) + report_data
        if version == 5:
            body = struct.pack("<HI", 3, 648) + body + TCB_SVN + service_td
        return header + body + self._sign(header + body, qe_attributes, qe_svn)

    def _sign(self, signed: bytes, qe_attributes: int, qe_svn: int) -> bytes:
        public = self.attestation_key.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )[1:]
        auth_data = bytes(range(32))
        report = bytes(16) + bytes(4) + bytes(28) + struct.pack("<Q", qe_attributes) + bytes(8)
        report += bytes([1] * 32) + bytes(32) + QE_SIGNER + bytes(96)
        report += struct.pack("<HH", 2, qe_svn) + bytes(60)
        report += hashlib.sha256(public + auth_data).digest() + bytes(32)
        chain = (self.pck.pem() + self.pck_ca.pem() + self.root.pem()).encode()
        inner = report + self.pck.sign(report) + struct.pack("<H", 32) + auth_data
        inner += struct.pack("<HI", 5, len(chain)) + chain
        auth = sign_raw(self.attestation_key, signed) + public
        auth += struct.pack("<HI", 6, len(inner)) + inner
        return struct.pack("<I", len(auth)) + auth


def dump(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def at(seconds: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def level(status: str, svn: int = 2, **more: Any) -> dict[str, Any]:
    components = [{"svn": svn}] * 16
    tcb = {"sgxtcbcomponents": components, "tdxtcbcomponents": [{"svn": 0}] * 16, "pcesvn": 11}
    return {"tcb": tcb, "tcbDate": at(NOW - 400 * DAY_S), "tcbStatus": status, **more}


MODULE = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
TCB_INFO = {
    "id": "TDX",
    "version": 3,
    "issueDate": at(NOW - 3 * DAY_S),
    "nextUpdate": at(NOW + 27 * DAY_S),
    "fmspc": FMSPC.hex(),
    "pceId": PCE_ID.hex(),
    "tcbType": 0,
    "tcbEvaluationDataNumber": 18,
    "tdxModule": MODULE,
    "tdxModuleIdentities": [
        {
            "id": "TDX_01",
            **MODULE,
            "tcbLevels": [
                {"tcb": {"isvsvn": 4}, "tcbDate": at(NOW), "tcbStatus": "UpToDate"},
                {"tcb": {"isvsvn": 2}, "tcbDate": at(NOW), "tcbStatus": "OutOfDate"},
            ],
        }
    ],
    "tcbLevels": [level("UpToDate")],
}
QE_IDENTITY = {
    "id": "TD_QE",
    "version": 2,
    "issueDate": at(NOW - 3 * DAY_S),
    "nextUpdate": at(NOW + 27 * DAY_S),
    "tcbEvaluationDataNumber": 18,
    "miscselect": "00" * 4,
    "miscselectMask": "FF" * 4,
    "attributes": "11" + "00" * 15,
    "attributesMask": "FB" + "FF" * 7 + "00" * 8,
    "mrsigner": QE_SIGNER.hex(),
    "isvprodid": 2,
    "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": at(NOW), "tcbStatus": "UpToDate"}],
}


@cache
def make_platform() -> Platform:
    """One for all tests: none changes it, `changed` makes another."""
    root = issue("A root of the tests", None, is_ca=True)
    pck_ca = issue("Intel SGX PCK Platform CA", root, is_ca=True)
    return Platform(
        root=root,
        pck_ca=pck_ca,
        pck=make_pck(pck_ca),
        signing=issue("Intel SGX TCB Signing", root, is_ca=False),
        attestation_key=ec.generate_private_key(ec.SECP256R1()),
    )


def make_pck(pck_ca: Authority, name: str = "Intel SGX PCK Certificate", **more: Any) -> Authority:
    fields = {"fmspc": FMSPC, "pce_id": PCE_ID, "cpu_svn": CPU_SVN, "pce_svn": 11, **more}
    return issue(name, pck_ca, is_ca=False, extension=sgx_extension(**fields))
