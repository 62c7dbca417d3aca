"""What says that something was verified is made by its verifier, and by nobody else."""

import copy
import dataclasses
import pickle
import re
from pathlib import Path

import pytest

import hanse
import hanse.verification.attestation as verifier
from hanse.protocol.errors import InvariantError
from hanse.verification.attestation.event_log import VerifiedLog
from hanse.verification.attestation.gpus import VerifiedGpu
from hanse.verification.attestation.quotes import VerifiedQuote
from hanse.verification.attestation.verify import Attestation
from hanse.verification.attestation.witness import Witness
from tests.verification.attestation.made_attestations import Made, make_bundle, make_gpu_policy, run

SRC = Path(hanse.__file__).parent


@pytest.fixture(scope="module")
def attestation() -> Attestation:
    return run(verifier, Made(gpu=make_bundle(), policy=make_gpu_policy()))


def test_none_is_made_without_the_seal(attestation):
    made = (attestation, attestation.quote, attestation.log, attestation.gpus[0])
    assert {type(one) for one in made} == set(Witness.__subclasses__())
    for one in made:
        fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
        with pytest.raises(TypeError):
            type(one)(**fields)
        for seal in (None, True, object()):
            with pytest.raises(InvariantError):
                type(one)(seal=seal, **fields)


def test_none_is_made_from_another(attestation):
    with pytest.raises(ValueError, match="seal"):
        dataclasses.replace(attestation, image="another")
    with pytest.raises(dataclasses.FrozenInstanceError):
        attestation.image = "another"
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvariantError):
            store(attestation)


def test_the_seal_is_taken_where_something_is_verified_alone():
    """Each of these modules takes it once, in the function that has checked everything."""
    used = {
        path.stem: len(re.findall(r"seal=SEAL", path.read_text()))
        for path in SRC.rglob("*.py")
        if re.search(r"\bSEAL\b", path.read_text()) and path.stem != "witness"
    }
    assert used == {"quotes": 1, "event_log": 1, "gpus": 1, "verify": 1}
    makers = {VerifiedQuote: "quotes", VerifiedLog: "event_log", VerifiedGpu: "gpus"}
    for kind, module in makers.items():
        assert kind.__module__.endswith(module)


def test_the_gateways_hook_takes_nothing_less():
    """The round that puts a machine in is given an `Attestation` by its type."""
    text = (SRC / "sdk" / "attesting" / "rounds.py").read_text()
    assert text.count("verify_until(") == 1
    assert "-> Attestation:" in text
