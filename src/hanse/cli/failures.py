"""Every way a command can fail, as one line and what to do, and as an exit code.

`report_failure` is called once, by `framework.HanseGroup.main`. A HanseError becomes its code, its
message and a next step; an error of click (a wrong option) is code `usage`; Ctrl-C is exit code
130; a file that cannot be used is named; anything else is a defect of Hanse, of which only type and
place are shown, since its text might hold a secret. HANSE_DEBUG=1 adds the traceback. With `--json`
the same goes to standard error in OpenAI's error shape.
"""

import os
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli.output import clean, encode_document
from hanse.cli.session import KEY_DEFAULT
from hanse.protocol.errors import ERROR_TABLE, HanseError

if TYPE_CHECKING:
    from hanse.cli.amounts import AssetUnits

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report a Ctrl-C."""

NEXT_STEPS = {
    "insufficient_balance": (
        "See what is where, and who signs for it, with: hanse account show{key}. "
        "Set more aside with: hanse account fund PROVIDER AMOUNT{key}{signer}"
    ),
    "sub_account_unknown": (
        "Fund the provider first: hanse account fund PROVIDER AMOUNT{key}{signer}"
    ),
    "voucher_too_low": "Put more there with: hanse account fund PROVIDER AMOUNT{key}{signer}",
    "model_not_found": "See what is offered with: hanse offers",
    "no_provider": "See who is healthy with: hanse offers",
    "provider_unreachable": "Try again, or see who is healthy with: hanse offers",
    "keystore_locked": (
        "Give the password at the prompt, in HANSE_PASSWORD, in a file that HANSE_PASSWORD_FILE "
        "names, or by the keyring."
    ),
    "keystore_permissions": "Close it to others: chmod 700 HOME/keys; chmod 600 HOME/keys/*.json",
    "chain_unavailable": (
        "Check rpc_url in network.json and that the node runs; a local one starts with: hanse up"
    ),
    "rate_limited": "Wait, then try again.",
    "overloaded": "Wait, then try again.",
    "store_unavailable": "Check the disk, and that no other process holds this home folder.",
    "transaction_failed": "Nothing was moved by it. See where the money is with: hanse money{key}",
    "receipt_invalid": (
        "If a provider sent it, pay that provider nothing more and keep it: it is evidence. "
        "If it is a file, see that it is the whole one."
    ),
    "invariant_broken": "Stop, keep the home folder as it is, and report it.",
    "internal_error": "Please report it; HANSE_DEBUG=1 shows the traceback.",
}
"""What a person at the command line can do next, where the message alone does not say it; `{key}`
and `{signer}` stand for the options that name the key and the signer in use. A command that knows
better says it by `error.add_note`.
"""

REVERT_MEANINGS = {
    "amount": "The amount is 0, or above what the contract can hold",
    "asset": "The asset's own contract refused to move it",
    "balance": "There is less than that",
    "locked": "The lock time has not passed yet",
    "no refund": "No refund waits there",
    "not permitted": "This key may not do that",
    "not registered": "That provider is not registered",
    "provider": "No such provider, or its stake does not stand",
    "received": "The asset delivered another amount than was sent",
    "stake": "The stake is below the least that counts",
    "unbonding": "The provider's stake is unbonding",
}
"""The contracts' revert reasons that a command can meet, as sentences."""

_BASE_UNITS = re.compile(r"\b(\d{1,29}) base units\b")
"""An amount as messages tell it; none has more digits."""


def report_failure(
    error: BaseException,
    *,
    as_json: bool,
    home: Path | None = None,
    key: str = KEY_DEFAULT,
    signer: str | None = None,
) -> int:
    """Write the error to standard error and return the exit code.

    Args:
        error: what ended the command.
        as_json: whether to write JSON.
        home: the home folder, to tell amounts in the asset's own units.
        key: name of the key that the command acted for.
        signer: who signs its vouchers, if it was said.
    """
    if os.environ.get("HANSE_DEBUG") == "1" and not isinstance(error, click.ClickException):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, click.Abort) and not isinstance(error.__context__, EOFError):
        _write("interrupted", "Interrupted.", EXIT_INTERRUPTED, as_json=as_json)
        return EXIT_INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        if not as_json:
            sys.stderr.write(error.format_message() + "\n")
            return ERROR_TABLE["usage"].exit_code
        error = click.UsageError("A command is missing.", error.ctx)
    body, exit_code, next_step = _describe(error)
    next_step = next_step.replace("{key}", "" if key == KEY_DEFAULT else f" --key {key}")
    next_step = next_step.replace("{signer}", f" --signer {signer}" if signer else "")
    message = body["error"]["message"]
    if isinstance(error, HanseError) and not as_json:
        units = _find_units(error, home)
        next_step = " ".join(filter(None, (_explain(error, units), next_step)))
        if units is not None:
            message = _tell_in_units(message, units)
    facts = body["error"]
    _write(
        facts["code"],
        message,
        exit_code,
        as_json=as_json,
        next_step=next_step,
        error_type=facts["type"],
        details=facts.get("hanse"),
    )
    return exit_code


def is_json_asked(arguments: list[str]) -> bool:
    """Whether the arguments ask for JSON: known before parsing, so that usage errors obey."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def _describe(error: BaseException) -> tuple[dict[str, Any], int, str]:
    if isinstance(error, click.Abort):
        error = HanseError("usage", "The input ended before an answer was given.")
    if isinstance(error, click.ClickException):
        where = getattr(error, "ctx", None)
        step = f"See: {where.command_path} --help" if where is not None else ""
        return (
            HanseError("usage", error.format_message()).to_openai(),
            ERROR_TABLE["usage"].exit_code,
            step,
        )
    if isinstance(error, HanseError):
        own = " ".join(getattr(error, "__notes__", ()))
        return error.to_openai(), error.row.exit_code, own or NEXT_STEPS.get(error.code, "")
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
        error = HanseError("store_unavailable", text)
        return error.to_openai(), error.row.exit_code, NEXT_STEPS[error.code]
    defect = HanseError("internal_error", f"A defect of Hanse: {_place(error)}.")
    return defect.to_openai(), defect.row.exit_code, NEXT_STEPS["internal_error"]


def _find_units(error: HanseError, home: Path | None) -> "AssetUnits | None":
    """How this home's market writes amounts, if the error tells any."""
    if home is None or ("needed" not in error.details and not _BASE_UNITS.search(error.message)):
        return None
    from hanse.cli.network import load_network

    try:
        return load_network(home).units
    except HanseError:
        return None


def _tell_in_units(message: str, units: "AssetUnits") -> str:
    """A message with its amounts as the rest of the text has them: one unit for all."""
    return _BASE_UNITS.sub(lambda found: units.format(int(found[1])), message)


def _explain(error: HanseError, units: "AssetUnits | None") -> str:
    """What the details say beyond the message: why a contract refused, amounts in whole units."""
    reason = error.details.get("reason")
    if error.code == "transaction_failed" and reason in REVERT_MEANINGS:
        return REVERT_MEANINGS[reason] + "."
    needed, available = error.details.get("needed"), error.details.get("available")
    if units is None or not isinstance(needed, str) or not isinstance(available, str):
        return ""
    return f"Needed are {units.format(int(needed))}, there are {units.format(int(available))}."


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__} in {os.path.basename(last.filename)}, line {last.lineno}"


def _write(
    code: str,
    message: str,
    exit_code: int,
    *,
    as_json: bool,
    next_step: str = "",
    error_type: str = "interrupted",
    details: dict[str, Any] | None = None,
) -> None:
    if as_json:
        error: dict[str, Any] = {
            "message": message,
            "type": error_type,
            "code": code,
            "exit_code": exit_code,
        }
        if next_step:
            error["next_step"] = next_step
        if details:
            error["hanse"] = details
        sys.stderr.write(encode_document({"error": error}) + "\n")
        return
    if code == "interrupted":
        sys.stderr.write(message + "\n")
        return
    sys.stderr.write(f"hanse: {clean(' '.join(message.split()))} [{code}]\n")
    if next_step:
        sys.stderr.write(f"       {clean(next_step)}\n")
