"""Compile the Vyper sources into the committed artefacts: `python -m hanse.contracts.compile`.

A developer's command: it needs the `dev` extra (vyper). The package itself reads only the
artefacts, so that a light install has no compiler. The artefacts are also the snapshots of ABI
and storage layout: a test compiles again and compares, so that no change of either goes unseen.
"""

import json
import sys
from pathlib import Path
from typing import Any

CONTRACTS = ("Escrow", "Registry", "Records", "Disputes", "TestAsset")
"""Every contract that is deployed from the package."""

SOURCES = Path(__file__).parent


def compile_contract(name: str, folder: Path = SOURCES) -> dict[str, Any]:
    """Compile one contract of `folder`; interfaces are found beside the package's own sources.

    Returns:
        What an artefact file holds: ABI, bytecode as hex, storage layout, NatSpec, compiler.
    """
    from vyper import __version__  # type: ignore[import-untyped]
    from vyper.compiler import compile_from_file_input  # type: ignore[import-untyped]
    from vyper.compiler.input_bundle import FilesystemInputBundle  # type: ignore[import-untyped]
    from vyper.compiler.settings import Settings  # type: ignore[import-untyped]

    bundle = FilesystemInputBundle([SOURCES, folder])
    source = bundle.load_file(folder / f"{name}.vy")
    formats = ["abi", "bytecode", "bytecode_runtime", "layout", "userdoc", "devdoc"]
    out = compile_from_file_input(
        source,
        input_bundle=bundle,
        output_formats=formats,
        settings=Settings(),
        # Metadata would change the bytecode with every comment.
        no_bytecode_metadata=True,
    )
    return {
        "contract": name,
        "compiler": f"vyper {__version__}",
        "abi": out["abi"],
        "storage_layout": out["layout"].get("storage_layout", {}),
        "transient_layout": out["layout"].get("transient_storage_layout", {}),
        "userdoc": out["userdoc"],
        "devdoc": out["devdoc"],
        "runtime_bytes": len(out["bytecode_runtime"]) // 2 - 1,
        "bytecode": out["bytecode"],
    }


def format_artifact(artifact: dict[str, Any]) -> str:
    """The artefact file's text: one line a key of the ABI, so that a diff can be read."""
    return json.dumps(artifact, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Rewrite every artefact and say what changed."""
    for name in CONTRACTS:
        path = SOURCES / "artifacts" / f"{name}.json"
        text = format_artifact(compile_contract(name))
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
        print(f"{name}: {'rewritten' if changed else 'unchanged'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
