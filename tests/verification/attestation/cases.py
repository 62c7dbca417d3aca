"""Every way of ours to spoil an attestation, with the code that must come of it."""

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.verification.attestation.made_attestations import (
    BOOT_LOG,
    CHAIN,
    EVENTS,
    OTHER,
    OTHER_GPU_KEY,
    OTHER_NONCE,
    Made,
    flip,
    make_bundle,
    make_gpu_policy,
    pack,
    split_log,
)
from tests.verification.attestation.made_platform import (
    DAY_S,
    MODULE,
    NOW,
    SEPT_VE_DISABLE,
    at,
    issue,
    level,
    make_pck,
    make_platform,
)


@dataclass(frozen=True)
class Case:
    name: str
    code: str
    make: Callable[[], Made]


def edit_quote(change: Callable[[bytes], bytes]) -> Made:
    def spoil(document: dict[str, Any]) -> None:
        document["quote"] = pack(change(base64.b64decode(document["quote"])))

    return Made(spoil=spoil)


def edit(**fields: Any) -> Made:
    return Made(spoil=lambda document: document.update(fields))


def edit_collateral(name: str, change: Callable[[str], str]) -> Made:
    def spoil(document: dict[str, Any]) -> None:
        document["collateral"][name] = change(document["collateral"][name])

    return Made(spoil=spoil)


def flip_digit(position: int) -> Callable[[str], str]:
    def change(text: str) -> str:
        i = position % len(text)
        return text[:i] + ("0" if text[i] != "0" else "1") + text[i + 1 :]

    return change


def with_platform(**changes: Any) -> Made:
    return Made(platform=make_platform().changed(**changes))


def with_tcb(**changes: Any) -> Made:
    return with_platform(tcb=changes)


def with_log(change: Callable[[list[bytes]], list[bytes]]) -> Made:
    return Made(boot_log=b"".join(change(split_log(BOOT_LOG))))


def with_gpu(rules: dict[str, Any] | None = None, **changes: Any) -> Made:
    return Made(gpu=make_bundle(**changes), policy=make_gpu_policy(**(rules or {})))


def change_event(log: list[bytes], number: int, offset: int) -> list[bytes]:
    return [*log[:number], flip(log[number], offset), *log[number + 1 :]]


def swap_events(log: list[bytes]) -> list[bytes]:
    return [*log[:38], log[39], log[38], *log[40:]]


def rewrite(log: list[bytes], number: int, form: str, offset: int, value: int) -> list[bytes]:
    event = bytearray(log[number])
    struct.pack_into(form, event, offset, value)
    return [*log[:number], bytes(event), *log[number + 1 :]]


FIELDS = {
    "qe svn": 8,
    "user data": 28,
    "tee tcb svn": 48,
    "mr_seam": 64,
    "attributes": 171,
    "xfam": 176,
    "mr_td": 184,
    "mr_config_id": 232,
    "mr_owner": 280,
    "mr_owner_config": 328,
    "rtmr0": 376,
    "rtmr1": 424,
    "rtmr2": 472,
    "rtmr3": 520,
    "report data": 568,
    "end of report data": 631,
    "signature": 640,
}
"""Where each field of a version 4 quote begins, flipped without a new signature."""

AUTH = 636
QE_REPORT = AUTH + 128 + 6
OTHER_CA = issue("Intel SGX PCK Platform CA", None, is_ca=True)
P256_PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


def list_quote_cases() -> list[Case]:
    rows: list[tuple[str, str, Callable[[], Made]]] = [
        (
            f"quote: {name} flipped",
            "signature_invalid",
            lambda at=at_: edit_quote(lambda q: flip(q, at)),
        )
        for name, at_ in FIELDS.items()
    ]
    rows += [
        ("quote: version", "unsupported", lambda: edit_quote(lambda q: flip(q, 0, 2))),
        ("quote: key type", "unsupported", lambda: edit_quote(lambda q: flip(q, 2))),
        ("quote: SGX", "unsupported", lambda: edit_quote(lambda q: flip(q, 4, 0x81))),
        ("quote: vendor", "unsupported", lambda: edit_quote(lambda q: flip(q, 12))),
        ("quote: body type", "unsupported", lambda: body_type()),
        (
            "quote: certification type",
            "unsupported",
            lambda: edit_quote(lambda q: flip(q, AUTH + 128)),
        ),
        ("quote: length", "malformed", lambda: edit_quote(lambda q: flip(q, 632))),
        ("quote: inner length", "malformed", lambda: edit_quote(lambda q: flip(q, AUTH + 130))),
        ("quote: cut", "malformed", lambda: edit_quote(lambda q: q[:-1])),
        ("quote: cut in its body", "malformed", lambda: edit_quote(lambda q: q[:300])),
        ("quote: 5 bytes", "malformed", lambda: edit_quote(lambda q: q[:5])),
        ("quote: lengths that disagree", "malformed", lambda: edit_quote(lengthen)),
        ("quote: header alone", "malformed", lambda: edit_quote(lambda q: q[:48])),
        ("quote: bytes behind", "malformed", lambda: edit_quote(lambda q: q + b"x")),
        ("quote: too long", "malformed", lambda: edit_quote(lambda q: q + bytes(40_000))),
        ("quote: attestation key", "qe_invalid", lambda: edit_quote(lambda q: flip(q, AUTH + 64))),
        ("quote: QE report", "qe_invalid", lambda: edit_quote(lambda q: flip(q, QE_REPORT + 70))),
        (
            "quote: QE signature",
            "qe_invalid",
            lambda: edit_quote(lambda q: flip(q, QE_REPORT + 390)),
        ),
        (
            "quote: QE auth data",
            "qe_invalid",
            lambda: edit_quote(lambda q: flip(q, QE_REPORT + 460)),
        ),
        ("quote: QE in debug mode", "qe_invalid", lambda: Made(quote={"qe_attributes": 0x13})),
        ("quote: QE too old", "qe_invalid", lambda: Made(quote={"qe_svn": 3})),
        ("quote: a certificate", "chain_invalid", lambda: edit_quote(lambda q: flip(q, 1_500))),
        ("machine: debug", "debug", lambda: Made(quote={"attributes": SEPT_VE_DISABLE | 1})),
        (
            "machine: profiling",
            "attributes_refused",
            lambda: Made(quote={"attributes": SEPT_VE_DISABLE | 16}),
        ),
        (
            "machine: reserved bit",
            "attributes_refused",
            lambda: Made(quote={"attributes": SEPT_VE_DISABLE | 2}),
        ),
        (
            "machine: migratable",
            "attributes_refused",
            lambda: Made(quote={"attributes": SEPT_VE_DISABLE | 1 << 29}),
        ),
        (
            "machine: service TD attribute",
            "attributes_refused",
            lambda: Made(quote={"attributes": SEPT_VE_DISABLE | 1 << 17}),
        ),
        (
            "machine: no SEPT_VE_DISABLE",
            "attributes_refused",
            lambda: Made(quote={"attributes": 0}),
        ),
        (
            "machine: a service TD",
            "attributes_refused",
            lambda: Made(quote={"version": 5, "service_td": bytes([1] * 48)}),
        ),
    ]
    return [Case(name, "attestation_" + code, make) for name, code, make in rows]


def lengthen(quote: bytes) -> bytes:
    """As long as it says, with room that nothing inside claims."""
    (size,) = struct.unpack_from("<I", quote, 632)
    return quote[:632] + struct.pack("<I", size + 100) + quote[636:] + bytes(100)


def body_type() -> Made:
    made = edit_quote(lambda q: flip(q, 48))
    made.quote = {"version": 5}
    return made


def list_collateral_cases() -> list[Case]:
    root, ca = make_platform().root, make_platform().pck_ca
    rows: list[tuple[str, str, Callable[[], Made]]] = [
        (
            "TCB info: signature",
            "tcb_info_invalid",
            lambda: edit_collateral("tcb_info_signature", flip_digit(9)),
        ),
        (
            "TCB info: changed",
            "tcb_info_invalid",
            lambda: edit_collateral("tcb_info", lambda t: t.replace("18", "19")),
        ),
        (
            "TCB info: no JSON",
            "tcb_info_invalid",
            lambda: edit_collateral("tcb_info", lambda t: t[:-1]),
        ),
        ("TCB info: other platform", "tcb_info_invalid", lambda: with_tcb(fmspc="00806f050000")),
        ("TCB info: other PCE", "tcb_info_invalid", lambda: with_tcb(pceId="0001")),
        ("TCB info: for SGX", "tcb_info_invalid", lambda: with_tcb(id="SGX")),
        ("TCB info: expired", "collateral_expired", lambda: with_tcb(nextUpdate=at(NOW - 1))),
        ("TCB info: of tomorrow", "collateral_expired", lambda: with_tcb(issueDate=at(NOW + 60))),
        (
            "TCB info: empty chain",
            "chain_invalid",
            lambda: edit_collateral("tcb_info_issuer_chain", lambda _: ""),
        ),
        (
            "TCB info: broken chain",
            "chain_invalid",
            lambda: edit_collateral("tcb_info_issuer_chain", flip_digit(200)),
        ),
        (
            "TCB info: signature cut",
            "malformed",
            lambda: edit_collateral("tcb_info_signature", lambda t: t[:20]),
        ),
        (
            "QE identity: signature",
            "qe_identity_invalid",
            lambda: edit_collateral("qe_identity_signature", flip_digit(9)),
        ),
        (
            "QE identity: changed",
            "qe_identity_invalid",
            lambda: edit_collateral("qe_identity", lambda t: t.replace("18", "19")),
        ),
        (
            "QE identity: no JSON",
            "qe_identity_invalid",
            lambda: edit_collateral("qe_identity", lambda t: t[:-1]),
        ),
        ("QE identity: for SGX", "qe_identity_invalid", lambda: with_platform(qe={"id": "QE"})),
        (
            "QE identity: expired",
            "collateral_expired",
            lambda: with_platform(qe={"nextUpdate": at(NOW - 1)}),
        ),
        (
            "QE identity: of tomorrow",
            "collateral_expired",
            lambda: with_platform(qe={"issueDate": at(NOW + 60)}),
        ),
        (
            "QE identity: other signer",
            "qe_invalid",
            lambda: with_platform(qe={"mrsigner": "08" * 32}),
        ),
        ("QE identity: other product", "qe_invalid", lambda: with_platform(qe={"isvprodid": 3})),
        (
            "QE identity: other attributes",
            "qe_invalid",
            lambda: with_platform(qe={"attributes": "15" + "00" * 15, "attributesMask": "FF" * 16}),
        ),
        (
            "QE identity: other chain",
            "chain_invalid",
            lambda: edit_collateral("qe_identity_issuer_chain", lambda _: OTHER_CA.pem() * 2),
        ),
        (
            "chain: PCK of another root",
            "chain_invalid",
            lambda: with_platform(pck=make_pck(OTHER_CA)),
        ),
        ("chain: PCK expired", "collateral_expired", lambda: with_platform(pck=expired_pck())),
        (
            "chain: all of another root",
            "crl_invalid",
            lambda: Made(policy={"root": OTHER_CA.pem()}),
        ),
        ("chain: Intel's root asked for", "crl_invalid", lambda: Made(policy={"root": ""})),
        (
            "role: TCB info signed by a platform",
            "certificate_role",
            lambda: with_platform(signing=issue("Intel SGX PCK Certificate", root, is_ca=False)),
        ),
        (
            "role: platform is something else",
            "certificate_role",
            lambda: with_platform(pck=make_pck(ca, "Intel SGX TCB Signing")),
        ),
        ("role: platform's issuer", "certificate_role", other_issuer),
        ("revoked: platform", "certificate_revoked", lambda: with_platform(revoked=("pck",))),
        ("revoked: its issuer", "certificate_revoked", lambda: with_platform(revoked=("pck_ca",))),
        (
            "revoked: TCB signing",
            "certificate_revoked",
            lambda: with_platform(revoked=("signing",)),
        ),
        ("revoked: root", "certificate_revoked", lambda: with_platform(revoked=("root",))),
        ("CRL: expired", "collateral_expired", lambda: with_platform(crl_ends=NOW - 1)),
        (
            "CRL: platforms' forged",
            "crl_invalid",
            lambda: edit_collateral("pck_crl", flip_digit(-2)),
        ),
        (
            "CRL: root's forged",
            "crl_invalid",
            lambda: edit_collateral("root_ca_crl", flip_digit(-2)),
        ),
        ("CRL: platforms' empty", "crl_invalid", lambda: edit_collateral("pck_crl", lambda _: "")),
        ("CRL: root's empty", "crl_invalid", lambda: edit_collateral("root_ca_crl", lambda _: "")),
        ("CRL: no hex", "malformed", lambda: edit_collateral("pck_crl", lambda _: "zz")),
        ("CRL: the root's twice", "crl_invalid", crl_twice),
        (
            "CRL chain: unreadable",
            "chain_invalid",
            lambda: edit_collateral("pck_crl_issuer_chain", lambda _: "none"),
        ),
        (
            "CRL chain: another root",
            "chain_invalid",
            lambda: edit_collateral("pck_crl_issuer_chain", lambda _: ca.pem() + OTHER_CA.pem()),
        ),
        (
            "CRL chain: not the root's",
            "chain_invalid",
            lambda: edit_collateral("pck_crl_issuer_chain", lambda _: OTHER_CA.pem() + root.pem()),
        ),
        (
            "CRL chain: not the list's",
            "crl_invalid",
            lambda: edit_collateral(
                "pck_crl_issuer_chain", lambda _: make_platform().signing.pem() + root.pem()
            ),
        ),
        (
            "collateral: too large",
            "malformed",
            lambda: edit_collateral("pck_crl_issuer_chain", lambda t: t + " " * 300_000),
        ),
        (
            "collateral: a field more",
            "malformed",
            lambda: Made(spoil=lambda d: d["collateral"].update(more="x")),
        ),
        ("TCB: out of date", "tcb_refused", lambda: with_tcb(tcbLevels=[level("OutOfDate")])),
        (
            "TCB: needs configuration",
            "tcb_refused",
            lambda: with_tcb(tcbLevels=[level("ConfigurationNeeded")]),
        ),
        ("TCB: revoked", "tcb_revoked", lambda: with_tcb(tcbLevels=[level("Revoked")])),
        (
            "TCB: below every level",
            "tcb_unknown",
            lambda: with_tcb(tcbLevels=[level("UpToDate", svn=4)]),
        ),
        ("TCB: unknown module", "tcb_unknown", lambda: with_tcb(tdxModuleIdentities=[])),
        (
            "TCB: module of another signer",
            "tcb_unknown",
            lambda: with_tcb(tdxModuleIdentities=[module(mrsigner="01" * 48)]),
        ),
        (
            "TCB: module out of date",
            "tcb_refused",
            lambda: with_tcb(tdxModuleIdentities=[module("OutOfDate")]),
        ),
        (
            "TCB: module revoked",
            "tcb_revoked",
            lambda: with_tcb(tdxModuleIdentities=[module("Revoked")]),
        ),
        (
            "TCB: an advisory",
            "advisory_refused",
            lambda: with_tcb(tcbLevels=[level("UpToDate", advisoryIDs=["INTEL-SA-01036"])]),
        ),
        ("TCB: old evaluation", "tcb_evaluation", lambda: Made(policy={"tcb_evaluation_min": 19})),
        (
            "collateral: too old",
            "collateral_old",
            lambda: Made(policy={"collateral_age_max_s": 2 * DAY_S}),
        ),
    ]
    return [Case(name, "attestation_" + code, make) for name, code, make in rows]


def module(status: str = "UpToDate", **more: Any) -> dict[str, Any]:
    levels = [{"tcb": {"isvsvn": 4}, "tcbDate": at(NOW), "tcbStatus": status}]
    return {"id": "TDX_01", **MODULE, "tcbLevels": levels, **more}


def expired_pck() -> Any:
    ca = make_platform().pck_ca
    extension = make_platform().pck.certificate.extensions[-1].value.value
    return issue("Intel SGX PCK Certificate", ca, is_ca=False, extension=extension, ends=NOW - 1)


def other_issuer() -> Made:
    other = issue("Another CA", make_platform().root, is_ca=True)
    return with_platform(pck_ca=other, pck=make_pck(other))


def crl_twice() -> Made:
    def spoil(document: dict[str, Any]) -> None:
        document["collateral"]["pck_crl"] = document["collateral"]["root_ca_crl"]

    return Made(spoil=spoil)


def list_binding_cases() -> list[Case]:
    rows: list[tuple[str, str, Callable[[], Made]]] = [
        ("nonce: never issued", "nonce_unknown", lambda: Made(nonce_state="unknown")),
        ("nonce: used", "nonce_used", lambda: Made(nonce_state="used")),
        ("nonce: expired", "nonce_expired", lambda: Made(nonce_state="expired")),
        ("nonce: another is named", "nonce_mismatch", lambda: edit(nonce=OTHER_NONCE)),
        ("provider: another is named", "provider_mismatch", lambda: edit(provider=OTHER)),
        ("key: another is named", "key_mismatch", lambda: edit(receipt_key=OTHER)),
        ("nonce: another is quoted", "unbound", lambda: Made(quote_for={"nonce": OTHER_NONCE})),
        ("provider: another is quoted", "unbound", lambda: Made(quote_for={"provider": OTHER})),
        ("key: another is quoted", "unbound", lambda: Made(quote_for={"receipt_key": OTHER})),
        (
            "parts in another order",
            "unbound",
            lambda: Made(quote_for={"provider": "0x" + "c3" * 20, "receipt_key": "0x" + "a1" * 20}),
        ),
        ("document: no JSON", "malformed", lambda: Made(spoil=lambda d: d.clear())),
        ("document: version 2", "malformed", lambda: edit(version=2)),
        ("document: a field more", "malformed", lambda: edit(verified=True)),
        ("document: too large", "malformed", lambda: edit(boot_log="A" * 5_000_000)),
        (
            "document: too large, in allowed parts",
            "malformed",
            lambda: edit(events=[{"name": "x", "payload": "00" * 4_000}] * 1_000),
        ),
        ("document: nested", "malformed", lambda: edit(more=json.loads("[" * 200 + "]" * 200))),
        ("document: nonce is no hash", "malformed", lambda: edit(nonce="0x00")),
        ("document: no base64", "malformed", lambda: edit(quote="a quote")),
        ("document: long base64", "malformed", lambda: edit(quote="A" * 60_000)),
        (
            "document: too many events",
            "malformed",
            lambda: edit(events=[{"name": "x", "payload": ""}] * 1_025),
        ),
    ]
    for register in (
        "mr_td",
        "rtmr0",
        "rtmr1",
        "rtmr2",
        "mr_config_id",
        "mr_owner",
        "mr_owner_config",
        "mr_seam",
    ):
        rows.append(
            (
                f"policy: another {register}",
                "measurement_refused",
                lambda r=register: Made(image={r: "44" * 48}),
            )
        )
    rows.append(
        (
            "policy: another rtmr3",
            "measurement_refused",
            lambda: Made(image={"rtmr3": "44" * 48, "events": {}}),
        )
    )
    return [Case(name, "attestation_" + code, make) for name, code, make in rows]


def list_log_cases() -> list[Case]:
    rows: list[tuple[str, str, Callable[[], Made]]] = [
        (
            "boot log: an event changed",
            "log_mismatch",
            lambda: with_log(lambda log: change_event(log, 30, 20)),
        ),
        (
            "boot log: its first removed",
            "log_mismatch",
            lambda: with_log(lambda log: [log[0], *log[2:]]),
        ),
        ("boot log: its last removed", "log_mismatch", lambda: with_log(lambda log: log[:-1])),
        ("boot log: two exchanged", "log_mismatch", lambda: with_log(swap_events)),
        ("boot log: one twice", "log_mismatch", lambda: with_log(lambda log: [*log, log[-1]])),
        (
            "boot log: one in another register",
            "log_mismatch",
            lambda: with_log(lambda log: rewrite(log, 30, "<I", 0, 2)),
        ),
        (
            "boot log: a text changed",
            "log_mismatch",
            lambda: with_log(lambda log: change_event(log, 3, 80)),
        ),
        (
            "boot log: one not measured",
            "log_mismatch",
            lambda: with_log(lambda log: rewrite(log, 30, "<I", 4, 3)),
        ),
        (
            "boot log: register 0",
            "log_malformed",
            lambda: with_log(lambda log: rewrite(log, 30, "<I", 0, 0)),
        ),
        (
            "boot log: two digests",
            "log_malformed",
            lambda: with_log(lambda log: rewrite(log, 30, "<I", 8, 2)),
        ),
        (
            "boot log: SHA-256",
            "log_malformed",
            lambda: with_log(lambda log: rewrite(log, 30, "<H", 12, 11)),
        ),
        ("boot log: cut in an event's text", "log_malformed", lambda: Made(boot_log=BOOT_LOG[:-3])),
        ("boot log: cut in an event's head", "log_malformed", lambda: Made(boot_log=BOOT_LOG[:85])),
        ("boot log: of another kind", "log_malformed", lambda: with_log(lambda log: log[1:])),
        (
            "boot log: too many events",
            "log_malformed",
            lambda: with_log(lambda log: log + [log[8]] * 9_000),
        ),
        ("boot log: too large", "malformed", lambda: Made(boot_log=BOOT_LOG + b"\xff" * 2**20)),
        ("boot log: none", "log_missing", lambda: Made(boot_log=b"")),
        (
            "events: a payload changed",
            "log_mismatch",
            lambda: Made(events=(("manifest", "12" * 32), EVENTS[1])),
        ),
        (
            "events: a name changed",
            "log_mismatch",
            lambda: Made(events=(("manifests", EVENTS[0][1]), EVENTS[1])),
        ),
        ("events: the last removed", "log_mismatch", lambda: Made(events=EVENTS[:1])),
        ("events: exchanged", "log_mismatch", lambda: Made(events=EVENTS[::-1])),
        ("events: one twice", "log_mismatch", lambda: Made(events=(*EVENTS, EVENTS[1]))),
        ("events: no hex", "log_malformed", lambda: Made(events=(("manifest", "xy"), EVENTS[1]))),
        (
            "events: a name of 200 bytes",
            "log_malformed",
            lambda: Made(events=(("m" * 200, ""), EVENTS[1])),
        ),
        ("events: no name", "log_malformed", lambda: Made(events=(("", ""), EVENTS[1]))),
        (
            "events: a long payload",
            "log_malformed",
            lambda: Made(events=(("manifest", "00" * 5_000),)),
        ),
        (
            "events alone: changed",
            "log_mismatch",
            lambda: Made(boot_log=b"", policy={"boot_log": "optional"}, events=EVENTS[:1]),
        ),
        (
            "events: not of the policy",
            "event_refused",
            lambda: Made(image={"events": {"manifest": ["11" * 32]}}),
        ),
        (
            "events: another payload asked for",
            "event_refused",
            lambda: Made(image={"events": {"manifest": ["13" * 32], "engine": []}}),
        ),
        (
            "events: a further one asked for",
            "event_refused",
            lambda: Made(image={"events": {"manifest": [], "engine": [], "extra": []}}),
        ),
        (
            "events: none came",
            "event_refused",
            lambda: Made(boot_log=b"", events=(), policy={"boot_log": "optional"}),
        ),
    ]
    return [Case(name, "attestation_" + code, make) for name, code, make in rows]


def list_gpu_cases() -> list[Case]:
    nonce_match = "x-nvidia-gpu-attestation-report-nonce-match"
    bad_chain = {
        "x-nvidia-gpu-attestation-report-cert-chain": CHAIN
        | {"x-nvidia-cert-ocsp-status": "revoked"}
    }
    rows: list[tuple[str, str, Callable[[], Made]]] = [
        ("GPU: none came", "missing", lambda: Made(policy=make_gpu_policy())),
        ("GPU: no keys pinned", "unverifiable", lambda: Made(gpu=make_bundle())),
        (
            "GPU: SPDM",
            "unverifiable",
            lambda: Made(gpu=b"raw", gpu_kind="spdm", policy=make_gpu_policy()),
        ),
        ("GPU: no bundle", "invalid", lambda: Made(gpu=b"{}", policy=make_gpu_policy())),
        (
            "GPU: nested",
            "invalid",
            lambda: Made(gpu=b"[" * 200 + b"]" * 200, policy=make_gpu_policy()),
        ),
        (
            "GPU: a bundle of something else",
            "invalid",
            lambda: Made(
                gpu=make_bundle().replace(b'"JWT"', b'"JWX"', 1), policy=make_gpu_policy()
            ),
        ),
        ("GPU: no GPU", "invalid", lambda: with_gpu(swap=lambda _: {})),
        ("GPU: another key signed all", "invalid", lambda: with_gpu(key=OTHER_GPU_KEY)),
        ("GPU: another key signed one", "invalid", lambda: with_gpu(gpu_key=OTHER_GPU_KEY)),
        ("GPU: no signature", "invalid", lambda: with_gpu(header={"alg": "none"})),
        ("GPU: a shared key", "invalid", lambda: with_gpu(header={"alg": "HS384"})),
        (
            "GPU: critical header",
            "invalid",
            lambda: with_gpu(header={"alg": "ES384", "crit": ["x"]}),
        ),
        (
            "GPU: another issuer",
            "invalid",
            lambda: with_gpu(overall={"iss": "https://else.example"}),
        ),
        (
            "GPU: another issuer of one",
            "invalid",
            lambda: with_gpu(of_gpu={"iss": "https://else.example"}),
        ),
        ("GPU: expired", "expired", lambda: with_gpu(overall={"exp": NOW - 1})),
        ("GPU: of tomorrow", "expired", lambda: with_gpu(overall={"nbf": NOW + 3_600})),
        ("GPU: for ever", "invalid", lambda: with_gpu(overall={"exp": None})),
        ("GPU: another nonce", "unbound", lambda: with_gpu(overall={"eat_nonce": OTHER_NONCE[2:]})),
        (
            "GPU: another nonce of one",
            "unbound",
            lambda: with_gpu(of_gpu={"eat_nonce": OTHER_NONCE[2:]}),
        ),
        (
            "GPU: the overall result",
            "refused",
            lambda: with_gpu(overall={"x-nvidia-overall-att-result": False}),
        ),
        (
            "GPU: a result in words",
            "refused",
            lambda: with_gpu(overall={"x-nvidia-overall-att-result": "true"}),
        ),
        ("GPU: one left out", "invalid", lambda: with_gpu(swap=lambda t: {"GPU-0": t["GPU-0"]})),
        (
            "GPU: one shown twice",
            "invalid",
            lambda: with_gpu(swap=lambda t: {"GPU-0": t["GPU-0"], "GPU-1": t["GPU-0"]}),
        ),
        ("GPU: measurements", "refused", lambda: with_gpu(of_gpu={"measres": "fail"})),
        ("GPU: no measurements", "refused", lambda: with_gpu(of_gpu={"measres": None})),
        ("GPU: no secure boot", "refused", lambda: with_gpu(of_gpu={"secboot": None})),
        ("GPU: debugging", "refused", lambda: with_gpu(of_gpu={"dbgstat": "enabled"})),
        (
            "GPU: a check failed",
            "refused",
            lambda: with_gpu(of_gpu={"x-nvidia-gpu-vbios-rim-version-match": False}),
        ),
        ("GPU: nonce not compared", "refused", lambda: with_gpu(of_gpu={nonce_match: False})),
        ("GPU: its chain", "refused", lambda: with_gpu(of_gpu=bad_chain)),
        ("GPU: another model", "refused", lambda: with_gpu({"hardware": ["GB200"]})),
        ("GPU: no model", "refused", lambda: with_gpu(of_gpu={"hwmodel": None})),
    ]
    cases = [Case(name, "attestation_gpu_" + code, make) for name, code, make in rows]
    cases.append(
        Case(
            "GPU: evidence taken away",
            "attestation_unbound",
            lambda: Made(policy=make_gpu_policy(required=False), quote_for={"gpu": make_bundle()}),
        )
    )
    cases.append(
        Case(
            "GPU: evidence of another time",
            "attestation_unbound",
            lambda: Made(
                gpu=make_bundle(), policy=make_gpu_policy(), quote_for={"gpu": make_bundle()}
            ),
        )
    )
    return cases


def list_policy_cases() -> list[Case]:
    rows: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("no images", {"images": []}, {}),
        ("an unknown status", {"tcb_statuses": ["Fine"]}, {}),
        ("Revoked allowed", {"tcb_statuses": ["UpToDate", "Revoked"]}, {}),
        ("age 0", {"collateral_age_max_s": 0}, {}),
        ("attestation age 0", {"attestation_age_max_s": 0}, {}),
        ("a field more", {"allow_debug": True}, {}),
        ("no certificate as root", {"root": "none"}, {}),
        ("GPU without keys", make_gpu_policy(keys=[]), {}),
        ("GPU with a broken key", make_gpu_policy(keys=["none"]), {}),
        ("GPU with a key of another curve", make_gpu_policy(keys=[P256_PEM]), {}),
        ("a register in words", {}, {"mr_td": "whatever"}),
        ("a register in capitals", {}, {"mr_td": "AB" * 48}),
        ("events of MRTD", {}, {"mr_td": "events"}),
        ("events that nothing measures", {}, {"rtmr3": "any"}),
        ("too large", {"advisories": ["x" * 1_100_000]}, {}),
    ]
    return [
        Case(f"policy: {name}", "configuration_invalid", lambda p=p, i=i: Made(policy=p, image=i))
        for name, p, i in rows
    ]


@cache
def list_cases() -> list[Case]:
    found = list_quote_cases() + list_collateral_cases() + list_binding_cases()
    return found + list_log_cases() + list_gpu_cases() + list_policy_cases()
