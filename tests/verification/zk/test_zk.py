"""The zk tier: a classifier is proven and verified off chain and on an EVM; forgeries fail."""

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyrevm
import pytest
from click.testing import CliRunner

from hanse.chain import Call, ChainError, Rpc
from hanse.cli.main import hanse
from hanse.cli.proving.solc import get_compiler
from hanse.protocol.errors import RequestError, VerificationError
from hanse.verification.zk import (
    Circuit,
    Proof,
    backend,
    compile_source,
    decode_proof,
    encode_call,
    encode_proof,
    load_circuit,
    prove,
    set_up,
    verify_key,
    verify_proof,
    write_source,
)
from hanse.verification.zk.npc import FEATURES, LABELS, draw_situations, train_npc
from hanse.verification.zk.onnx_file import Layers, encode_onnx
from hanse.verification.zk.proofs import FIELD
from tests.cli.local_market import open_market

GAS_MAX = 600_000


@pytest.fixture(scope="module")
def layers() -> Layers:
    return train_npc()


@pytest.fixture(scope="module")
def circuit(layers, tmp_path_factory) -> Circuit:
    return set_up(tmp_path_factory.mktemp("zk") / "npc", encode_onnx(layers), LABELS)


@pytest.fixture(scope="module")
def asked() -> tuple[list[float], str]:
    return next(one for one in draw_situations(3, 100) if one[1] == "heal")


@pytest.fixture(scope="module")
def proof(circuit, asked) -> Proof:
    return prove(circuit, asked[0])


def run_floats(layers: Layers, inputs: list[float]) -> list[float]:
    hidden = [
        max(0.0, bias + sum(x * row[n] for x, row in zip(inputs, layers.w1, strict=True)))
        for n, bias in enumerate(layers.b1)
    ]
    return [
        bias + sum(h * row[n] for h, row in zip(hidden, layers.w2, strict=True))
        for n, bias in enumerate(layers.b2)
    ]


def test_the_file_is_onnx_to_another_runtime(layers, asked):
    runtime = pytest.importorskip("onnxruntime")
    np = pytest.importorskip("numpy")
    session = runtime.InferenceSession(encode_onnx(layers))
    (found,) = session.run(None, {"x": np.array([asked[0]], dtype=np.float32)})
    assert found[0].tolist() == pytest.approx(run_floats(layers, asked[0]), abs=1e-4)


def test_the_example_has_learnt_its_rule(layers):
    situations = draw_situations(11, 500)
    outputs = [run_floats(layers, inputs) for inputs, _ in situations]
    right = [
        LABELS[o.index(max(o))] == label for o, (_, label) in zip(outputs, situations, strict=True)
    ]
    assert sum(right) > 0.88 * len(right)


def test_what_was_proven_is_what_the_model_says(circuit, layers, proof, asked):
    inference = verify_proof(decode_proof(encode_proof(proof)), asked[0], circuit)
    assert inference.label == asked[1]
    assert list(inference.outputs) == pytest.approx(run_floats(layers, asked[0]), abs=0.05)
    assert inference.model_hash == circuit.model_hash


def flip(proof: Proof, place: int) -> Proof:
    raw = bytearray.fromhex(proof.proof[2:])
    raw[place] ^= 1
    return msgspec.structs.replace(proof, proof="0x" + raw.hex())


def forge(proof: Proof) -> dict[str, Proof]:
    replace = msgspec.structs.replace
    outputs = list(proof.outputs)
    outputs[0], outputs[2] = outputs[2], outputs[0]
    return {
        "another action": replace(proof, outputs=tuple(outputs)),
        "a nudged output": replace(proof, outputs=(proof.outputs[0] + 1, *proof.outputs[1:])),
        "a wrapped output": replace(proof, outputs=(proof.outputs[0] + FIELD, *proof.outputs[1:])),
        "other inputs": replace(proof, inputs=(proof.inputs[0] + 1, *proof.inputs[1:])),
        "fewer outputs": replace(proof, outputs=proof.outputs[:-1]),
        "fewer inputs": replace(proof, inputs=proof.inputs[:-1]),
        "a flipped point": flip(proof, 40),
        "a flipped scalar": flip(proof, 2_000),
        "a flipped end": flip(proof, 3_071),
        "a cut proof": replace(proof, proof=proof.proof[:-64]),
        "a longer proof": replace(proof, proof=proof.proof + "00" * 32),
        "no proof": replace(proof, proof="0x"),
        "no hexadecimal": replace(proof, proof="0xzz"),
        "another key": replace(proof, key_hash="0x" + "0" * 64),
    }


def test_every_forgery_is_refused(circuit, proof, asked):
    for name, forged in forge(proof).items():
        with pytest.raises(VerificationError) as refused:
            verify_proof(forged, asked[0], circuit)
        assert refused.value.code == "zk_proof_invalid", name


def test_a_proof_about_another_question_is_refused(circuit, proof, asked):
    other = [1 - value for value in asked[0]]
    with pytest.raises(VerificationError, match="other inputs"):
        verify_proof(proof, other, circuit)


@pytest.mark.parametrize(
    "inputs", [[0.0] * 15, [0.0] * 17, [float("nan")] * 16, [1e9] * 16], ids=str
)
def test_inputs_that_the_model_does_not_take_are_refused(circuit, inputs):
    with pytest.raises(RequestError):
        prove(circuit, inputs)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[" * 5_000, b"x" * 300_000, b'{"format": "x"}'])
def test_a_file_that_is_no_proof_is_refused(raw):
    with pytest.raises(VerificationError):
        decode_proof(raw)


def test_the_key_is_held_against_the_model(circuit, layers, tmp_path):
    verify_key(circuit)
    nudged = dataclasses.replace(layers, b2=[layers.b2[0] + 1, *layers.b2[1:]])
    other = tmp_path / "npc"
    shutil.copytree(circuit.folder, other, ignore=shutil.ignore_patterns("proving.key"))
    (other / "model.onnx").write_bytes(encode_onnx(nudged))
    with pytest.raises(RequestError, match=r"model\.onnx belongs to no circuit"):
        load_circuit(other)
    from hashlib import sha256

    told = json.loads((other / "circuit.json").read_text())
    told["model_hash"] = "0x" + sha256((other / "model.onnx").read_bytes()).hexdigest()
    (other / "circuit.json").write_text(json.dumps(told))
    with pytest.raises(VerificationError, match="proves another model"):
        verify_key(load_circuit(other))


def test_traits_of_ezkl_that_are_worked_around_are_still_there(circuit, proof, asked, tmp_path):
    """If one of these fails, ezkl got better: take the workaround out."""
    folder = Path(circuit.folder)
    raw = bytes.fromhex(proof.proof[2:])
    values = [
        (value % FIELD).to_bytes(32, "little").hex() for value in (*proof.inputs, *proof.outputs)
    ]
    backend.verify(folder, tmp_path, values, raw + bytes(32))  # bytes after the end are taken
    document = json.loads((tmp_path / "proof.json").read_text())
    document["hex_proof"] = "0x00"  # and the text is not read
    (tmp_path / "proof.json").write_text(json.dumps(document))
    names = ("settings.json", "verification.key", "srs.kzg")
    settings, key, srs = (str(folder / name) for name in names)
    assert backend.load().verify(str(tmp_path / "proof.json"), settings, key, srs)


def test_set_up_refuses_what_it_cannot_prove(layers, tmp_path):
    with pytest.raises(RequestError, match="as many as labels"):
        set_up(tmp_path / "a", encode_onnx(layers), LABELS[:4])
    with pytest.raises(RequestError, match="ezkl could not read the model"):
        set_up(tmp_path / "b", b"no model", LABELS)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_the_contract_takes_the_proof_and_refuses_forgeries(circuit, proof, anvil_cache):
    compiler = get_compiler(anvil_cache / "cache", lambda _: None)
    contract = compile_source(write_source(circuit), compiler)
    evm = pyrevm.EVM(spec_id="PRAGUE")
    caller = "0x" + "11" * 20
    address = evm.deploy(caller, contract.creation_code)
    assert evm.message_call(caller, address, calldata=encode_call(proof)) == (1).to_bytes(32, "big")
    assert evm.result.gas_used < GAS_MAX
    for name, forged in forge(proof).items():
        if name in ("no hexadecimal", "another key", "a wrapped output"):
            continue  # nothing that could be sent, or that a call would show
        with pytest.raises(RuntimeError, match="Revert"):
            evm.message_call(caller, address, calldata=encode_call(forged))
    wrapped = encode_call(proof)
    last = int.from_bytes(wrapped[-32:], "big") + FIELD
    with pytest.raises(RuntimeError, match="Revert"):  # the same number, written beyond the field
        evm.message_call(caller, address, calldata=wrapped[:-32] + last.to_bytes(32, "big"))


@pytest.mark.slow
def test_by_commands_on_a_real_chain(circuit, proof, asked, anvil, anvil_cache, tmp_path):
    """Prove, verify, deploy the contract and ask it; a forged proof is refused by the chain."""
    files = {"in": asked[0], "other": [1.0] * 16}
    for name, numbers in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(numbers))
    written = tmp_path / "proof.json"
    with open_market(tmp_path / "home", anvil) as market:
        market.add_key("user")
        (market.home / "cache").symlink_to(anvil_cache / "cache")

        def run(*arguments: str) -> Any:
            asked_for = ["zk", *arguments, "--json"]
            return CliRunner().invoke(hanse, asked_for, env=market.environment)

        proven = run(
            "prove", circuit.folder, "--input", f"{tmp_path}/in.json", "--output", str(written)
        )
        assert json.loads(proven.stdout)["label"] == asked[1]
        deployed = json.loads(run("contract", circuit.folder, "--deploy", "user").stdout)
        contract = ("--contract", deployed["contract"])
        question = ("verify", circuit.folder, str(written), "--input", f"{tmp_path}/in.json")
        verified = json.loads(run(*question, *contract).stdout)
        assert verified["is_accepted_on_chain"]
        assert verified["gas"] < GAS_MAX + 100_000  # with what calldata costs
        other = run(*question[:-1], f"{tmp_path}/other.json")
        assert (other.exit_code, json.loads(other.stderr)["error"]["code"]) == (
            8,
            "zk_proof_invalid",
        )
        wrong = run(*question, "--contract", market.network.deployment.escrow)
        assert "another contract" in wrong.stderr

        async def ask(asked_proof: Proof) -> None:
            async with Rpc.connect(anvil) as rpc:
                head = await rpc.fetch_head()
                call = Call(to=deployed["contract"], data=encode_call(asked_proof))
                await rpc.call(call, block=head.number)

        asyncio.run(ask(proof))
        with pytest.raises(ChainError):
            asyncio.run(ask(forge(proof)["a nudged output"]))


def test_without_the_extra_one_line_says_how_to_install_it():
    code = (
        "import sys; sys.modules['ezkl'] = None\n"
        "from hanse.protocol.errors import RequestError\n"
        "from hanse.verification.zk import backend\n"
        "try: backend.load()\n"
        "except RequestError as error: print(error.message)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'hanse[zk]'" in ran.stdout


def test_the_features_have_names(layers):
    assert layers.shape == (len(FEATURES), 32, len(LABELS))
