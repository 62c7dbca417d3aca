"""A good attestation verifies, and every case of `cases` is refused with its own code."""

import pytest

import hanse.verification.attestation as verifier
from hanse.protocol.attestation.codes import ATTESTATION_CODES
from hanse.protocol.errors import HanseError
from tests.verification.attestation.cases import edit_collateral, list_cases
from tests.verification.attestation.made_attestations import (
    Made,
    make_bundle,
    make_gpu_policy,
    run,
)
from tests.verification.attestation.made_platform import NOW, level, make_platform


def get_chain() -> str:
    platform = make_platform()
    return platform.pck.pem() + platform.pck_ca.pem() + platform.root.pem()


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: Made(), id="version 4 with boot log and events"),
        pytest.param(lambda: Made(quote={"version": 5}), id="version 5"),
        pytest.param(
            lambda: edit_collateral("pck_certificate_chain", lambda _: get_chain()),
            id="with the platform's chain beside it",
        ),
        pytest.param(
            lambda: Made(boot_log=b"", policy={"boot_log": "optional"}), id="events alone"
        ),
        pytest.param(lambda: Made(gpu=make_bundle(), policy=make_gpu_policy()), id="with two GPUs"),
        pytest.param(lambda: Made(policy=make_gpu_policy(required=False)), id="GPU not required"),
        pytest.param(lambda: Made(image={"mr_td": "any", "rtmr0": "any"}), id="any register"),
        pytest.param(
            lambda: Made(
                platform=make_platform().changed(
                    tcb={"tcbLevels": [level("OutOfDate", advisoryIDs=["INTEL-SA-01036"])]}
                ),
                policy={
                    "tcb_statuses": ["UpToDate", "OutOfDate"],
                    "advisories": ["INTEL-SA-01036"],
                },
            ),
            id="out of date, and allowed",
        ),
    ],
)
def test_a_good_attestation_is_verified(made):
    attestation = run(verifier, made())
    assert attestation.image == "made"
    assert attestation.quote.measurements.mr_td == "33" * 48
    assert not attestation.quote.is_of_intel  # it says so: this root is the tests'
    assert NOW < attestation.valid_until <= NOW + 3_600


def test_gpus_are_named_and_end_with_their_tokens():
    attestation = run(verifier, Made(gpu=make_bundle(), policy=make_gpu_policy()))
    assert [gpu.name for gpu in attestation.gpus] == ["GPU-0", "GPU-1"]
    assert attestation.valid_until == NOW + 1_800


@pytest.mark.parametrize("case", list_cases(), ids=lambda case: case.name)
def test_a_spoilt_attestation_is_refused_with_its_code(case):
    with pytest.raises(HanseError) as caught:
        run(verifier, case.make())
    assert caught.value.code == case.code, caught.value.message


def test_every_code_has_a_case():
    """`attestation_missing` is the user's side's, where a broker gives nothing."""
    tried = {case.code for case in list_cases()}
    assert set(ATTESTATION_CODES) - tried == {"attestation_missing"}
