"""`hanse zk`: zero-knowledge proofs of what a small classifier answers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.framework import group, pass_session
from hanse.cli.modelling.progress import show_progress
from hanse.cli.session import Session
from hanse.protocol.errors import RequestError

if TYPE_CHECKING:
    from hanse.verification.zk import Circuit, Inference

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)

INPUT_BYTES_MAX = 65_536
"""A thousand numbers written out."""

LOCAL_SRS = (
    "the reference string was made on this machine: whoever made it could forge proofs, so it "
    "convinces only those who trust this machine; for strangers bring one of a ceremony by --srs"
)


@group(
    "zk",
    short_help="Prove what a small classifier answers (zero knowledge).",
    examples=(
        (
            "The example: which of five actions does this character take?",
            "hanse zk setup npc --example",
        ),
        ("Run it and prove the answer", "hanse zk prove npc --example 7 --output proof.json"),
        ("Check the proof", "hanse zk verify npc proof.json --example 7"),
        ("Check it on the chain too", "hanse zk contract npc --deploy user"),
    ),
)
def zk() -> None:
    """Prove that a classifier of some thousand weights gives this answer.

    The strongest rung of the ladder and the dearest: a proof takes about a second of processor time
    where the answer takes microseconds, so it is no way to check a language model. Needs the extra
    `zk`: pip install 'hanse[zk]'.
    """


@zk.command_of(
    "setup",
    short_help="Make a classifier ready to be proven.",
    examples=(
        ("The example, with a reference string of its own", "hanse zk setup npc --example"),
        (
            "A model of one's own, as ONNX",
            "hanse zk setup door --model door.onnx --labels open,shut --srs ceremony.srs",
        ),
    ),
)
@click.argument("folder", type=_FOLDER)
@click.option("--model", type=_FILE, help="An ONNX file.")
@click.option("--example", is_flag=True, help="Instead: the example, trained now from a seed.")
@click.option("--labels", default="", help="Names of the outputs, separated by commas.")
@click.option("--srs", type=_FILE, help="A reference string. [default: one made here]")
@click.option(
    "--rows-log2",
    type=click.IntRange(12, 17),
    default=12,
    help="Size of the circuit; each step more doubles the time.",
)
@pass_session
def setup(session: Session, /, **options: Any) -> None:
    """Write a folder with the keys of one model. Takes some seconds."""
    from hanse.verification.zk import set_up

    onnx, labels = _read_model(options["model"], options["labels"], options["example"])
    steps = iter(range(4))
    with show_progress(session.output) as draw:
        circuit = set_up(
            options["folder"],
            onnx,
            labels,
            rows_log2=options["rows_log2"],
            srs=options["srs"],
            say=lambda text: draw(text, next(steps) / 4),
        )
        draw("done", 1.0)
    _show_circuit(session, circuit)
    if circuit.srs_origin == "local":
        session.output.note(LOCAL_SRS)


@zk.command_of(
    "prove",
    short_help="Run the classifier and prove its answer.",
    examples=(
        ("A situation of the example's", "hanse zk prove npc --example 7 --output proof.json"),
        ("Inputs from a file: a list of numbers", "hanse zk prove npc --input in.json --json"),
    ),
)
@click.argument("folder", type=_FOLDER)
@click.option("--input", "source", type=_FILE, help="A JSON list of numbers.")
@click.option("--example", type=int, help="Instead: the example's situation of this number.")
@click.option("--output", type=_FILE, help="Where the proof goes. [default: standard output]")
@pass_session
def prove(session: Session, /, **options: Any) -> None:
    """Prove the answer to these inputs. The proof is public, inputs and outputs included."""
    from hanse.verification.zk import encode_proof, load_circuit, verify_proof
    from hanse.verification.zk import prove as make_proof

    inputs = _read_inputs(options["source"], options["example"])
    circuit = load_circuit(options["folder"])
    with show_progress(session.output) as draw:
        draw("running and proving", 0.0)
        proof = make_proof(circuit, inputs)
        draw("verifying", 0.9)
        inference = verify_proof(proof, inputs, circuit)
        draw("done", 1.0)
    raw = encode_proof(proof)
    if options["output"] is not None:
        options["output"].write_bytes(raw)
    document = {"proof": json.loads(raw), "proof_bytes": circuit.proof_bytes}
    _show_inference(session, inference, circuit, document)
    if options["output"] is None:
        session.output.note("the proof was not kept: name a file by --output")


@zk.command_of(
    "verify",
    short_help="Check a proof, here or by a contract.",
    examples=(
        ("The proof of an example", "hanse zk verify npc proof.json --example 7"),
        (
            "Also that the key is this model's, and by the contract",
            "hanse zk verify npc proof.json --input in.json --remake-key --contract 0x5fbd...",
        ),
    ),
)
@click.argument("folder", type=_FOLDER)
@click.argument("file", type=_FILE)
@click.option("--input", "source", type=_FILE, help="The inputs that were asked about.")
@click.option("--example", type=int, help="Instead: the example's situation of this number.")
@click.option("--remake-key", is_flag=True, help="Make the key anew from the model and compare.")
@click.option("--contract", "address", help="Ask this contract of `hanse zk contract` too.")
@pass_session
async def verify(session: Session, /, **options: Any) -> None:
    """Check that the classifier gives the proof's outputs for the inputs that were asked about."""
    from hanse.verification.zk import decode_proof, load_circuit, verify_key, verify_proof

    inputs = _read_inputs(options["source"], options["example"])
    circuit = load_circuit(options["folder"])
    proof = decode_proof(_read_file(options["file"]))
    document: dict[str, Any] = {"is_key_remade": options["remake_key"]}
    with show_progress(session.output) as draw:
        if options["remake_key"]:
            draw("making the key anew", 0.0)
            verify_key(circuit)
        draw("verifying", 0.7)
        inference = verify_proof(proof, inputs, circuit)
        if options["address"] is not None:
            from hanse.cli.proving.on_chain import ask_contract

            draw("asking the contract", 0.8)
            document |= await ask_contract(session, circuit, options["address"], proof)
        draw("done", 1.0)
    _show_inference(session, inference, circuit, document)
    if circuit.srs_origin == "local":
        session.output.note(LOCAL_SRS)


@zk.command_of(
    "contract",
    short_help="Compile the verifier for the chain, and deploy it.",
    examples=(
        ("Write its source and its code", "hanse zk contract npc"),
        ("Put it on this home's chain, paid by a key", "hanse zk contract npc --deploy user"),
    ),
)
@click.argument("folder", type=_FOLDER)
@click.option("--deploy", "key", metavar="NAME", help="Deploy it, paid by this key of the home.")
@click.option("--keyring", is_flag=True, help="Take the password from the desktop's keyring.")
@pass_session
async def contract(session: Session, /, **options: Any) -> None:
    """Make a contract that takes this circuit's proofs and nothing else.

    ezkl writes it in Solidity; the compiler is npm's package solc, fetched once into the home
    folder. FOLDER gets verifier.sol and verifier.json with the code.
    """
    from hanse.cli.proving.on_chain import deploy_contract, make_contract
    from hanse.verification.zk import load_circuit

    circuit, output = load_circuit(options["folder"]), session.output
    with output.wait("writing and compiling ..."):
        made = make_contract(session, circuit)
    document: dict[str, Any] = {"code_bytes": len(made.runtime_code), "compiler": made.compiler}
    if options["key"] is not None:
        with output.wait("deploying ..."):
            document |= await deploy_contract(
                session, made, options["key"], use_keyring=options["keyring"]
            )
    output.show(document, lambda: output.fields(document.items()))


def _read_model(model: Path | None, labels: str, is_example: bool) -> tuple[bytes, tuple[str, ...]]:
    if (model is None) != is_example:
        raise RequestError("usage", "give either --model FILE or --example")
    if model is None:
        from hanse.verification.zk.npc import LABELS, train_npc
        from hanse.verification.zk.onnx_file import encode_onnx

        if labels:
            raise RequestError("usage", "--labels belongs to --model: the example has its own")
        return encode_onnx(train_npc()), LABELS
    named = tuple(label.strip() for label in labels.split(",") if label.strip())
    if not named:
        raise RequestError("usage", "--model needs --labels: the names of its outputs")
    return _read_file(model), named


def _read_inputs(source: Path | None, example: int | None) -> list[float]:
    if (source is None) == (example is None):
        raise RequestError("usage", "give either --input FILE or --example NUMBER")
    if source is None:
        from hanse.verification.zk.npc import draw_situations

        assert example is not None  # one of the two is there
        return draw_situations(example, 1)[0][0]
    raw = _read_file(source)
    try:
        found = json.loads(raw) if len(raw) <= INPUT_BYTES_MAX else None
    except (ValueError, RecursionError):
        found = None
    is_list = isinstance(found, list) and all(type(one) in (int, float) for one in found)
    if not is_list:
        raise RequestError("invalid_request", f"{source} is no JSON list of numbers")
    return [float(one) for one in found or ()]


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError("not_found", f"{path} cannot be read: {error.strerror}") from None


def _show_circuit(session: Session, circuit: "Circuit") -> None:
    document = {
        "folder": circuit.folder,
        "model_hash": circuit.model_hash,
        "key_hash": circuit.key_hash,
        "srs_origin": circuit.srs_origin,
        "proof_bytes": circuit.proof_bytes,
        "labels": list(circuit.labels),
    }
    shown = (*list(document.items())[:-1], ("labels", ", ".join(circuit.labels)))
    session.output.show(document, lambda: session.output.fields(shown))


def _show_inference(
    session: Session, inference: "Inference", circuit: "Circuit", more: dict[str, Any]
) -> None:
    outputs = dict(zip(circuit.labels, inference.outputs, strict=True))
    document = {
        "label": inference.label,
        "outputs": outputs,
        "model_hash": inference.model_hash,
        "srs_origin": circuit.srs_origin,
        **more,
    }
    shown = [("proven answer", inference.label)]
    shown += [(name, f"{value:.3f}") for name, value in outputs.items()]
    shown += [("model", inference.model_hash)]
    shown += [(name, str(value)) for name, value in more.items() if name != "proof"]
    session.output.show(document, lambda: session.output.fields(shown))
