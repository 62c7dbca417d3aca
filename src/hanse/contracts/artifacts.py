"""The contracts as the rest of Hanse sees them: ABI, bytecode, calls, results and events.

    escrow = load_artifact("Escrow")
    data = escrow.encode_call("fund", provider, signer, amount)
    (free,) = escrow.decode_output("accounts", returned_bytes)
    name, fields = escrow.decode_log(topics, log_data)

Addresses go in and come out as `0x` and 40 lower-case hex digits, `bytesN` as bytes, structs and
lists as tuples. Nothing here knows a node or a key; `chain` does.

Source: the Solidity ABI specification, which Vyper follows; `hanse.contracts.compile` writes the
files.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

from eth_abi.abi import decode, encode
from sha3 import keccak_256

ContractName = Literal["Escrow", "Registry", "Records", "Disputes", "TestAsset"]


@dataclass(frozen=True)
class FunctionAbi:
    """One function: its selector (4 bytes) and the ABI types of its inputs and outputs."""

    name: str
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_names: tuple[str, ...]


@dataclass(frozen=True)
class EventAbi:
    """One event: its topic (32 bytes) and its fields, split into the indexed ones and the rest."""

    name: str
    topic: bytes
    indexed: tuple[tuple[str, str], ...]
    unindexed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Artifact:
    """One compiled contract.

    Attributes:
        name: the contract's.
        abi: the JSON ABI as the compiler gave it.
        bytecode: creation code, without constructor arguments.
        runtime_bytes: length of the code on chain, without the immutables appended to it.
        storage_layout: variable -> type, first slot and number of slots.
        functions: by name; no contract of Hanse overloads one.
        events: by name.
        constructor_inputs: ABI types of the constructor.
        notes: NatSpec: `userdoc` and `devdoc`.
    """

    name: str
    abi: tuple[dict[str, Any], ...]
    bytecode: bytes
    runtime_bytes: int
    storage_layout: Mapping[str, Any]
    functions: Mapping[str, FunctionAbi]
    events: Mapping[str, EventAbi]
    constructor_inputs: tuple[str, ...]
    notes: Mapping[str, Any]

    def encode_deploy(self, *arguments: Any) -> bytes:
        """Creation code with constructor arguments: the data of a deploying transaction."""
        return self.bytecode + encode(self.constructor_inputs, arguments)

    def encode_call(self, function: str, *arguments: Any) -> bytes:
        """Calldata of a call."""
        entry = self.functions[function]
        return entry.selector + encode(entry.inputs, arguments)

    def decode_call(self, data: bytes) -> tuple[str, dict[str, Any]]:
        """Function name and arguments of calldata; KeyError for a selector that is not ours."""
        for entry in self.functions.values():
            if entry.selector == data[:4]:
                return entry.name, dict(
                    zip(entry.input_names, decode(entry.inputs, data[4:]), strict=True)
                )
        raise KeyError(f"{self.name} has no function with selector 0x{data[:4].hex()}")

    def decode_output(self, function: str, data: bytes) -> tuple[Any, ...]:
        """What a call returned, one item an output."""
        return decode(self.functions[function].outputs, data)

    def find_event(self, topic: bytes) -> EventAbi | None:
        """The event with this first topic, or None if it is not this contract's."""
        return next((event for event in self.events.values() if event.topic == topic), None)

    def decode_log(self, topics: Sequence[bytes], data: bytes) -> tuple[str, dict[str, Any]]:
        """Name and fields of a log; raises KeyError for an event that is not this contract's."""
        event = self.find_event(topics[0]) if topics else None
        if event is None:
            raise KeyError(f"{self.name} has no event with these topics")
        values = [
            decode((kind,), topic)[0]
            for (_, kind), topic in zip(event.indexed, topics[1:], strict=True)
        ]
        values += decode([kind for _, kind in event.unindexed], data)
        names = [name for name, _ in event.indexed + event.unindexed]
        return event.name, dict(zip(names, values, strict=True))


@cache
def load_artifact(name: ContractName) -> Artifact:
    """Read a committed artefact of the package; the same object at every call."""
    text = files("hanse.contracts").joinpath("artifacts", f"{name}.json").read_text("utf-8")
    return parse_artifact(json.loads(text))


def parse_artifact(raw: Mapping[str, Any]) -> Artifact:
    """Build an `Artifact` from what `compile_contract` returns."""
    functions: dict[str, FunctionAbi] = {}
    events: dict[str, EventAbi] = {}
    constructor_inputs: tuple[str, ...] = ()
    for entry in raw["abi"]:
        kinds = tuple(_type_of(item) for item in entry.get("inputs", ()))
        if entry["type"] == "constructor":
            constructor_inputs = kinds
        elif entry["type"] == "function":
            functions[entry["name"]] = FunctionAbi(
                name=entry["name"],
                selector=_keccak(f"{entry['name']}({','.join(kinds)})")[:4],
                inputs=kinds,
                outputs=tuple(_type_of(item) for item in entry["outputs"]),
                input_names=tuple(item["name"] for item in entry["inputs"]),
            )
        elif entry["type"] == "event":
            fields = [(item["name"], _type_of(item), item["indexed"]) for item in entry["inputs"]]
            events[entry["name"]] = EventAbi(
                name=entry["name"],
                topic=_keccak(f"{entry['name']}({','.join(kinds)})"),
                indexed=tuple((name, kind) for name, kind, indexed in fields if indexed),
                unindexed=tuple((name, kind) for name, kind, indexed in fields if not indexed),
            )
    return Artifact(
        name=raw["contract"],
        abi=tuple(raw["abi"]),
        bytecode=bytes.fromhex(raw["bytecode"][2:]),
        runtime_bytes=raw["runtime_bytes"],
        storage_layout=MappingProxyType(raw["storage_layout"]),
        functions=MappingProxyType(functions),
        events=MappingProxyType(events),
        constructor_inputs=constructor_inputs,
        notes=MappingProxyType({"userdoc": raw["userdoc"], "devdoc": raw["devdoc"]}),
    )


def _type_of(item: Mapping[str, Any]) -> str:
    kind: str = item["type"]
    if kind.startswith("tuple"):
        members = ",".join(_type_of(member) for member in item["components"])
        return f"({members}){kind[len('tuple') :]}"
    return kind


def _keccak(text: str) -> bytes:
    digest: bytes = keccak_256(text.encode()).digest()
    return digest
