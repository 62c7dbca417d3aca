"""Real quotes to Intel's root, at a time inside their collateral's, and spoilt at every layer."""

import json
import random
from pathlib import Path

import msgspec
import pytest

from hanse.protocol.errors import HanseError
from hanse.verification.attestation import Collateral, VerifiedQuote, verify_quote
from hanse.verification.attestation.event_log import get_log_size, read_boot_log, replay
from hanse.verification.attestation.quote_layout import read_quote
from hanse.verification.attestation.quotes import import_qvl
from hanse.verification.attestation.roots import INTEL_ROOT_DER, INTEL_ROOT_ID, get_root_id
from tests.verification.attestation.made_attestations import flip, split_log

DATA = Path(__file__).parent / "data"
IN_JUNE_2025 = 1_750_400_000
IN_FEBRUARY_2026 = 1_771_500_000
QUOTE = (DATA / "tdx_quote").read_bytes()
BOOT_LOG = (DATA / "cos-113-ccel.dat").read_bytes()
CHANCE = random.Random(5)


def get_collateral(name: str = "tdx_quote_collateral.json") -> Collateral:
    return msgspec.json.decode((DATA / name).read_bytes(), type=Collateral)


def get_code(quote: bytes, collateral: Collateral, now_s: int = IN_JUNE_2025) -> str:
    with pytest.raises(HanseError) as caught:
        verify_quote(quote, collateral, now_s)
    return caught.value.code.removeprefix("attestation_")


def test_a_quote_of_version_4():
    quote = verify_quote(QUOTE, get_collateral(), IN_JUNE_2025)
    assert quote.is_of_intel
    assert (quote.tcb_status, quote.advisories, quote.tcb_evaluation) == ("UpToDate", (), 17)
    assert quote.fmspc == "b0c06f000000"
    assert quote.measurements.mr_td.startswith("91eb2b44d141d4ec")
    assert quote.body.report_data.hex().startswith("9a9d48e7f6799642")
    assert quote.collateral_issued_at < IN_JUNE_2025 < quote.collateral_expires_at


def test_a_quote_of_version_5():
    collateral = get_collateral("tdx_quote_outdated_collateral.json")
    quote = verify_quote((DATA / "tdx_quote_v5").read_bytes(), collateral, IN_FEBRUARY_2026)
    assert (quote.body.version, quote.tcb_status) == (5, "UpToDate")


def test_what_is_read_of_a_quote_is_what_dcap_qvl_reads():
    for name in ("tdx_quote", "tdx_quote_v5", "tdx_quote_outdated", "cos-113-quote.dat"):
        raw = (DATA / name).read_bytes()
        ours, theirs = read_quote(raw), import_qvl().parse_quote(raw).report
        measured = ours.measurements
        assert measured.mr_td == theirs.mr_td.hex()
        assert measured.mr_seam == theirs.mr_seam.hex()
        assert measured.mr_config_id == theirs.mr_config_id.hex()
        assert measured.mr_owner == theirs.mr_owner.hex()
        assert measured.mr_owner_config == theirs.mr_owner_config.hex()
        assert measured.rtmrs == tuple(getattr(theirs, f"rt_mr{i}").hex() for i in range(4))
        assert ours.attributes == theirs.td_attributes.hex()
        assert ours.xfam == theirs.xfam.hex()
        assert ours.report_data == theirs.report_data


def test_the_pinned_root_is_intels():
    chain = import_qvl().parse_quote(QUOTE).cert_chain_pem_bytes()
    assert get_root_id(INTEL_ROOT_DER) == INTEL_ROOT_ID
    assert INTEL_ROOT_ID.startswith("44a0196b2b99f889")  # as Intel publishes it
    import_qvl().verify(
        QUOTE, import_qvl().QuoteCollateralV3.from_json(get_collateral().to_json()), IN_JUNE_2025
    )  # by dcap-qvl's own root
    from cryptography import x509

    last = x509.load_pem_x509_certificates(chain)[-1]
    assert last == x509.load_der_x509_certificate(INTEL_ROOT_DER)


@pytest.mark.parametrize(
    ("name", "collateral", "now_s", "code"),
    [
        (
            "tdx_quote_outdated",
            "tdx_quote_outdated_collateral.json",
            IN_FEBRUARY_2026,
            "tcb_unknown",
        ),
        ("tdx_quote", "tdx_quote_outdated_collateral.json", IN_FEBRUARY_2026, "tcb_info_invalid"),
        # the sample's makers have put a line of text behind it
        ("tdx_quote_production", "tdx_quote_collateral.json", IN_JUNE_2025, "malformed"),
        ("cos-113-quote.dat", "tdx_quote_collateral.json", IN_JUNE_2025, "tcb_info_invalid"),
        (
            "tdx_quote",
            "tdx_quote_collateral.json",
            IN_JUNE_2025 - 30 * 86_400,
            "collateral_expired",
        ),
        (
            "tdx_quote",
            "tdx_quote_collateral.json",
            IN_JUNE_2025 + 40 * 86_400,
            "collateral_expired",
        ),
        (
            "tdx_quote",
            "tdx_quote_collateral.json",
            IN_JUNE_2025 + 4_000 * 86_400,
            "collateral_expired",
        ),
        ("tdx_quote", "tdx_quote_collateral.json", 0, "collateral_expired"),
        ("tdx_quote", "tdx_quote_collateral.json", -1, "malformed"),
    ],
)
def test_real_quotes_that_must_be_refused(name, collateral, now_s, code):
    assert get_code((DATA / name).read_bytes(), get_collateral(collateral), now_s) == code


@pytest.mark.parametrize(
    ("begin", "end", "codes"),
    [
        pytest.param(0, 8, {"unsupported"}, id="version, key type, TEE"),
        pytest.param(8, 12, {"signature_invalid"}, id="SVNs"),
        pytest.param(12, 28, {"unsupported"}, id="vendor"),
        pytest.param(28, 632, {"signature_invalid"}, id="user data and body"),
        pytest.param(632, 636, {"malformed"}, id="length"),
        pytest.param(636, 700, {"signature_invalid"}, id="signature"),
        pytest.param(700, 764, {"qe_invalid"}, id="attestation key"),
        pytest.param(764, 770, {"malformed", "unsupported"}, id="kind and length inside"),
        pytest.param(770, 1_218, {"qe_invalid"}, id="QE report and its signature"),
        pytest.param(1_218, 1_252, {"qe_invalid", "malformed"}, id="QE's own data"),
        pytest.param(1_300, 3_000, {"chain_invalid"}, id="the platform's certificate"),
    ],
)
def test_a_flipped_bit_is_noticed_wherever_it_is(begin, end, codes):
    assert get_codes_of_flips(QUOTE, get_collateral(), IN_JUNE_2025, begin, end) <= codes


@pytest.mark.parametrize(
    ("begin", "end", "codes"),
    [
        pytest.param(0, 8, {"unsupported", "malformed"}, id="version, key type, TEE"),
        pytest.param(48, 54, {"unsupported"}, id="kind and size of the body"),
        pytest.param(54, 702, {"signature_invalid"}, id="body"),
        pytest.param(702, 706, {"malformed"}, id="length"),
        pytest.param(706, 770, {"signature_invalid"}, id="signature"),
        pytest.param(770, 834, {"qe_invalid"}, id="attestation key"),
        pytest.param(840, 1_288, {"qe_invalid"}, id="QE report and its signature"),
    ],
)
def test_so_it_is_in_a_quote_of_version_5(begin, end, codes):
    quote = (DATA / "tdx_quote_v5").read_bytes()
    collateral = get_collateral("tdx_quote_outdated_collateral.json")
    assert get_codes_of_flips(quote, collateral, IN_FEBRUARY_2026, begin, end) <= codes


def get_codes_of_flips(
    quote: bytes, collateral: Collateral, now_s: int, begin: int, end: int
) -> set[str]:
    """The codes of a dozen quotes with one bit flipped in this range."""
    places = CHANCE.sample(range(begin, end), min(12, end - begin))
    spoilt = [flip(quote, at, 1 << CHANCE.randrange(8)) for at in places]
    return {get_code(one, collateral, now_s) for one in spoilt}


@pytest.mark.parametrize("field", Collateral.__struct_fields__[:-1])
def test_every_field_of_the_collateral_is_held_to_something(field):
    """The first half of a chain is its leaf; the rest may be the root again, which is pinned."""
    document = json.loads(get_collateral().to_json())
    for place in (0.15, 0.3, 0.45):
        text = document[field]
        i = int(len(text) * place)
        changed = text[:i] + ("1" if text[i] != "1" else "2") + text[i + 1 :]
        collateral = msgspec.convert(document | {field: changed}, Collateral)
        assert get_code(QUOTE, collateral)


def test_a_real_boot_log_replays_to_a_real_quote():
    """The quote's own signature is not judged: the collateral of its time is not public here."""
    rtmrs = read_quote((DATA / "cos-113-quote.dat").read_bytes()).measurements.rtmrs
    assert replay(read_boot_log(BOOT_LOG), ()) == rtmrs


def test_a_real_boot_log_with_any_event_removed_or_moved_replays_to_something_else():
    rtmrs = read_quote((DATA / "cos-113-quote.dat").read_bytes()).measurements.rtmrs
    log = split_log(BOOT_LOG)
    for i in range(1, len(log)):
        assert replay(read_boot_log(b"".join(log[:i] + log[i + 1 :])), ()) != rtmrs
    events = read_boot_log(BOOT_LOG)
    for i in range(1, len(events)):
        first, second = events[i - 1], events[i]
        moved = (*events[: i - 1], second, first, *events[i + 1 :])
        is_alike = first.register != second.register or first.digest == second.digest
        assert (replay(moved, ()) == rtmrs) is is_alike


def test_the_empty_rest_of_a_boot_log_is_not_part_of_it():
    table = BOOT_LOG + b"\xff" * 4_000
    assert get_log_size(table) == len(BOOT_LOG)
    assert read_boot_log(table) == read_boot_log(BOOT_LOG)


def test_padding_behind_a_quote_is_no_harm():
    quote = verify_quote(QUOTE + bytes(2_994), get_collateral(), IN_JUNE_2025)
    assert isinstance(quote, VerifiedQuote)
