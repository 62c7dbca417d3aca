"""The pages of docs/ that are written from the code, so that they cannot say anything else.

    make generate

A test compares each page with what this writes. A new page is one line in `PAGES`.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hanse.cli.reference import render_reference
from hanse.contracts import abi_page
from hanse.contracts.artifacts import ContractName, load_artifact
from hanse.protocol.errors import ERROR_TABLE

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by `make generate`; change the code, not this page. -->"


def write_errors() -> str:
    """docs/errors.md: the table of codes."""
    lines = [
        NOTE,
        "# Errors",
        "",
        "One code names one situation everywhere: in HTTP bodies, in the command line's output and",
        "exit status, in logs. HTTP bodies have OpenAI's shape, with Hanse's facts beside it:",
        "",
        "```json",
        '{"error": {"message": "...", "type": "insufficient_quota", "param": null,',
        '           "code": "insufficient_balance", "hanse": {"needed": "700", "available": "500",',
        '           "missing": "200"}}}',
        "```",
        "",
        "What to do about it follows from the status: **4xx** change the request; **408, 409, 429,",
        "503** try again later or elsewhere; **502** what came back is not what was promised, go",
        "elsewhere; **500** a defect here, stop and report it. A refused request costs nothing.",
        "",
        "`reverts with` is the reason that the contracts give when they refuse the same thing.",
        "",
        "| code | HTTP | OpenAI type | exit | meaning | reverts with |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for code, row in sorted(ERROR_TABLE.items(), key=lambda item: item[1].status):
        revert = f"`{row.revert}`" if row.revert else ""
        lines.append(
            f"| `{code}` | {row.status} | `{row.openai_type}` | {row.exit_code} "
            f"| {row.meaning} | {revert} |"
        )
    return "\n".join(lines) + "\n"


def _write_contract(contract: ContractName) -> str:
    return abi_page.format_page(load_artifact(contract))


PAGES: dict[str, Callable[[], str]] = {
    "docs/cli.md": render_reference,
    "docs/errors.md": write_errors,
    **{
        f"docs/contracts/{page}": partial(_write_contract, contract)
        for page, contract in abi_page.PAGES.items()
    },
}
"""Path of each generated page, and what writes it."""


def main() -> int:
    """Write every page."""
    for name, write in PAGES.items():
        (ROOT / name).write_text(write())
        print(name, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
