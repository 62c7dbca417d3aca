"""The policy: a document of the operator that says which machines are good enough.

    policy = decode_policy(text)
    verify_platform(policy, quote)              collateral, TCB, advisories
    image = verify_image(policy, quote, log)    measurements and application events
    make_policy(quote)                          one that allows exactly what a quote shows

Unknown counts as failure: every register of an image is named, with its value, or with `any` where
the operator has decided that any will do. An image is a whole: registers of two images never add up
to one. The debug bit needs no line here: a machine that can be debugged is always refused.
"""

from typing import Literal

import msgspec

from hanse.protocol.errors import RequestError, VerificationError
from hanse.verification.attestation.event_log import VerifiedLog
from hanse.verification.attestation.evidence import ApplicationEvent
from hanse.verification.attestation.gpus import GpuPolicy
from hanse.verification.attestation.quotes import VerifiedQuote
from hanse.verification.attestation.roots import INTEL_ROOT_DER

ANY = "any"
EVENTS = "events"
"""As RTMR3: whatever the application events replay to, which `Image.events` judges."""

ZERO = "00" * 48
POLICY_BYTES_MAX = 1024 * 1024
IMAGES_MAX = 256
DAY_S = 86_400

TCB_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)
"""What a policy may allow. `Revoked` is none of them."""


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that may run: a virtual machine's image in one configuration.

    Each register is 96 hexadecimal digits or `any`; `rtmr3` may be `events`. `mr_seam` is Intel's
    own module, which the TCB status judges. `events` holds for each name that must occur, exactly
    once, the payloads that are allowed; an empty list allows any. Others may not occur.
    """

    name: str
    mr_td: str
    rtmr0: str
    rtmr1: str
    rtmr2: str
    rtmr3: str
    mr_seam: str = ANY
    mr_config_id: str = ZERO
    mr_owner: str = ZERO
    mr_owner_config: str = ZERO
    events: dict[str, tuple[str, ...]] = {}


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the module.

    Attributes:
        images: what may run.
        tcb_statuses: TCB statuses that are allowed.
        advisories: security advisories that are accepted; any other that applies is refused.
        tcb_evaluation_min: least number of Intel's TCB evaluation data; 0 for any.
        collateral_age_max_s: of its oldest part that Intel renews monthly.
        attestation_age_max_s: for how long a verification counts; then the machine is asked again.
        boot_log: whether a machine without its boot log is refused.
        gpu: None refuses any evidence of GPUs, because nothing could verify it.
        root: PEM of a root of one's own, for tests; empty for Intel's.
    """

    images: tuple[Image, ...]
    tcb_statuses: tuple[str, ...] = ("UpToDate",)
    advisories: tuple[str, ...] = ()
    tcb_evaluation_min: int = 0
    collateral_age_max_s: int = 30 * DAY_S
    attestation_age_max_s: int = 3_600
    boot_log: Literal["required", "optional"] = "required"
    gpu: GpuPolicy | None = None
    root: str = ""
    version: Literal[1] = 1

    def get_root_der(self) -> bytes:
        """The certificate that quotes must lead to.

        Raises:
            RequestError: `configuration_invalid`.
        """
        if not self.root:
            return INTEL_ROOT_DER
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        try:
            return x509.load_pem_x509_certificate(self.root.encode()).public_bytes(Encoding.DER)
        except ValueError:
            raise _wrong("root is no certificate in PEM") from None


def decode_policy(text: bytes) -> Policy:
    """Read a policy.

    Raises:
        RequestError: `configuration_invalid`, saying which part cannot be meant.
    """
    if len(text) > POLICY_BYTES_MAX:
        raise _wrong(f"it has {len(text)} bytes, at most {POLICY_BYTES_MAX} are read")
    try:
        policy = msgspec.json.decode(text, type=Policy)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(f"{error}"[:300]) from None
    if not 0 < len(policy.images) <= IMAGES_MAX:
        raise _wrong(f"it has {len(policy.images)} images, 1 to {IMAGES_MAX} are allowed")
    for image in policy.images:
        _check_image(image)
    unknown = [status for status in policy.tcb_statuses if status not in TCB_STATUSES]
    if unknown:
        raise _wrong(f"TCB status {unknown[0]!r:.60}, known are {', '.join(TCB_STATUSES)}")
    if policy.collateral_age_max_s <= 0 or policy.attestation_age_max_s <= 0:
        raise _wrong("an age must be above 0 seconds")
    if policy.gpu is not None and not (policy.gpu.load_keys() and policy.gpu.issuer):
        raise _wrong("gpu needs an issuer and at least one of its keys")
    policy.get_root_der()
    return policy


def verify_platform(policy: Policy, quote: VerifiedQuote) -> None:
    """Hold the platform, and what is known of it, to the policy.

    Raises:
        VerificationError: `attestation_collateral_old`, `attestation_tcb_refused`,
            `attestation_tcb_evaluation`, `attestation_advisory_refused`.
    """
    age_s = quote.verified_at - quote.collateral_issued_at
    if age_s > policy.collateral_age_max_s:
        raise VerificationError(
            "attestation_collateral_old",
            f"the collateral is {age_s} s old, at most {policy.collateral_age_max_s} are allowed",
        )
    if quote.tcb_status not in policy.tcb_statuses:
        raise VerificationError(
            "attestation_tcb_refused",
            f"the TCB status is {quote.tcb_status}, allowed are {', '.join(policy.tcb_statuses)}",
        )
    if quote.tcb_evaluation < policy.tcb_evaluation_min:
        raise VerificationError(
            "attestation_tcb_evaluation",
            f"the TCB was judged by evaluation data {quote.tcb_evaluation}, asked for is "
            f"{policy.tcb_evaluation_min}",
        )
    refused = [advisory for advisory in quote.advisories if advisory not in policy.advisories]
    if refused:
        raise VerificationError(
            "attestation_advisory_refused",
            f"{', '.join(refused)[:200]} applies, the policy accepts "
            f"{', '.join(policy.advisories)[:200] or 'none'}",
        )


def verify_image(policy: Policy, quote: VerifiedQuote, log: VerifiedLog | None) -> str:
    """The name of the image of the policy that runs there.

    Raises:
        VerificationError: `attestation_measurement_refused`, `attestation_event_refused`.
    """
    problem = None
    for image in policy.images:
        wrong = _find_difference(image, quote)
        if wrong:
            problem = problem or VerificationError(
                "attestation_measurement_refused",
                f"{wrong}; the policy's {len(policy.images)} images allow no such machine",
            )
            continue
        found = _find_event_problem(image, log)
        if not found:
            return image.name
        problem = VerificationError("attestation_event_refused", f"image {image.name}: {found}")
    assert problem is not None  # a policy has an image, and each leaves a problem
    raise problem


def make_policy(
    quote: VerifiedQuote, name: str, events: tuple[ApplicationEvent, ...], *, has_boot_log: bool
) -> Policy:
    """A policy that allows what this quote shows and nothing else: something to start from."""
    measured = quote.measurements
    rtmr0, rtmr1, rtmr2, rtmr3 = measured.rtmrs
    image = Image(
        name=name,
        mr_td=measured.mr_td,
        rtmr0=rtmr0,
        rtmr1=rtmr1,
        rtmr2=rtmr2,
        rtmr3=EVENTS if events else rtmr3,
        mr_config_id=measured.mr_config_id,
        mr_owner=measured.mr_owner,
        mr_owner_config=measured.mr_owner_config,
        events={event.name: (event.payload,) for event in events},
    )
    return Policy(
        images=(image,),
        tcb_statuses=(quote.tcb_status,),
        advisories=quote.advisories,
        tcb_evaluation_min=quote.tcb_evaluation,
        boot_log="required" if has_boot_log else "optional",
    )


def _find_difference(image: Image, quote: VerifiedQuote) -> str:
    measured = quote.measurements
    pairs = {
        "MRTD": (image.mr_td, measured.mr_td),
        "RTMR0": (image.rtmr0, measured.rtmrs[0]),
        "RTMR1": (image.rtmr1, measured.rtmrs[1]),
        "RTMR2": (image.rtmr2, measured.rtmrs[2]),
        "RTMR3": (image.rtmr3, measured.rtmrs[3]),
        "MRSEAM": (image.mr_seam, measured.mr_seam),
        "MRCONFIGID": (image.mr_config_id, measured.mr_config_id),
        "MROWNER": (image.mr_owner, measured.mr_owner),
        "MROWNERCONFIG": (image.mr_owner_config, measured.mr_owner_config),
    }
    for name, (allowed, quoted) in pairs.items():
        if allowed not in (ANY, quoted) and not (name == "RTMR3" and allowed == EVENTS):
            return f"{name} is {quoted}, image {image.name} has {allowed}"
    return ""


def _find_event_problem(image: Image, log: VerifiedLog | None) -> str:
    """What is wrong with the application events; they are judged only where RTMR3 is theirs."""
    if image.rtmr3 != EVENTS:
        return ""
    if log is None:
        return "no event log came, and RTMR3 is judged by its events"
    names = [event.name for event in log.events]
    for name, payloads in image.events.items():
        if names.count(name) != 1:
            return f"the event {name!r:.80} occurs {names.count(name)} times, not once"
        payload = log.events[names.index(name)].payload
        if payloads and payload not in payloads:
            return f"the event {name!r:.80} has the payload {payload:.100}, which is not allowed"
    unknown = [name for name in names if name not in image.events]
    return f"the event {unknown[0]!r:.80} is not allowed" if unknown else ""


def _check_image(image: Image) -> None:
    fields = ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_seam", "mr_config_id", "mr_owner")
    for field in (*fields, "mr_owner_config"):
        value = getattr(image, field)
        is_word = value == ANY or (field == "rtmr3" and value == EVENTS)
        if not is_word and (len(value) != 96 or set(value) - set("0123456789abcdef")):
            raise _wrong(f"{field} of image {image.name!r:.60} is no 96 lower-case hex digits")
    if image.events and image.rtmr3 != EVENTS:
        raise _wrong(f"image {image.name!r:.60} names events, so its rtmr3 must be `events`")


def _wrong(what: str) -> RequestError:
    return RequestError("configuration_invalid", f"the attestation policy: {what}")
