"""Errors, grouped by what the caller must do about them, and the one table of their codes.

    HanseError
    |- RequestError        the caller can fix it                    4xx
    |- TransientError      try again, here or elsewhere             409, 429, 503
    |- VerificationError   discard what was received, go elsewhere  502
    |- InvariantError      we are wrong: stop                       500

A code names one situation everywhere: in HTTP bodies, exit codes, logs and docs. `ERROR_TABLE` maps
it to the HTTP status, OpenAI's error type, the exit code of the command line and, where the
contracts refuse the same thing, the reason they revert with. `docs/errors.md` is generated from it.

A message names the two values that disagree and what to do. It never contains a prompt, a key or a
signature.
"""

from dataclasses import dataclass, field
from typing import Any

from hanse.protocol.attestation.codes import ATTESTATION_CODES


@dataclass(frozen=True)
class ErrorRow:
    """One row of the table.

    `exit_code` is the command line's; `revert` the contracts' reason, empty if none.
    """

    status: int
    openai_type: str
    exit_code: int
    meaning: str
    revert: str = ""


class HanseError(Exception):
    """Base of all errors that Hanse raises on purpose.

    Attributes:
        code: a key of `ERROR_TABLE`.
        message: one sentence or two for a person: what disagrees, and what to do.
        details: JSON-ready facts for a program (amounts as decimal strings).
        param: the request field at fault, as in OpenAI's errors.
        retry_after_s: how long to wait before a retry makes sense, if known.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        if code not in ERROR_TABLE:
            raise KeyError(f"{code!r} is not in ERROR_TABLE")
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def row(self) -> ErrorRow:
        """This code's row of the table."""
        return ERROR_TABLE[self.code]

    def to_openai(self) -> dict[str, Any]:
        """The body that OpenAI's clients expect, with Hanse's facts under `error.hanse`."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.row.openai_type,
            "param": self.param,
            "code": self.code,
        }
        if self.details:
            error["hanse"] = self.details
        return {"error": error}


class RequestError(HanseError):
    """The caller can fix it: a bad field, a missing fund, an unknown model."""


class TransientError(HanseError):
    """Nothing is wrong with the request; try again, here or elsewhere."""


class VerificationError(HanseError):
    """What was received is not what was promised; discard it and go elsewhere."""


class InvariantError(HanseError):
    """Our own state contradicts itself; stop before anything is lost."""


def _rows() -> dict[str, ErrorRow]:
    invalid, auth, quota = "invalid_request_error", "authentication_error", "insufficient_quota"
    return {
        # the caller's request
        "invalid_request": ErrorRow(
            400, invalid, 2, "A field is missing, of the wrong type or out of range."
        ),
        "amount_malformed": ErrorRow(
            400, invalid, 2, "A text is not an exact amount of the asset."
        ),
        "header_malformed": ErrorRow(
            401, auth, 3, "The Authorization header is not a Hanse voucher or API key."
        ),
        "context_length_exceeded": ErrorRow(
            400, invalid, 2, "Prompt and answer do not fit the model's context."
        ),
        "unsupported_parameter": ErrorRow(
            400, invalid, 2, "The engine does not offer this parameter."
        ),
        "signature_invalid": ErrorRow(
            401, auth, 3, "A signature is malformed or not the named signer's.", "signature"
        ),
        "api_key_invalid": ErrorRow(401, auth, 3, "The API key is unknown, revoked or expired."),
        "voucher_expired": ErrorRow(
            401, auth, 3, "The voucher's deadline has passed or lies too far ahead."
        ),
        "wrong_provider": ErrorRow(
            401, auth, 3, "The voucher pays another provider than the one that was asked."
        ),
        "insufficient_balance": ErrorRow(
            402, quota, 4, "The sub-account holds too little for this request.", "balance"
        ),
        "voucher_too_low": ErrorRow(
            402, quota, 4, "The voucher covers less than what is owed, reserved and asked."
        ),
        "fee_too_low": ErrorRow(
            402, quota, 4, "The maximum fee is below what this request can cost."
        ),
        "sub_account_unknown": ErrorRow(
            402, quota, 4, "No sub-account of this user, provider and signer is funded."
        ),
        "budget_exhausted": ErrorRow(
            402, quota, 4, "A money limit of the API key, its end user or the gateway is reached."
        ),
        "permission_denied": ErrorRow(
            403, "permission_error", 3, "The key may not do this.", "not permitted"
        ),
        "not_found": ErrorRow(404, invalid, 5, "No such path, model, offer or record."),
        "model_not_found": ErrorRow(404, invalid, 5, "No provider offers this model."),
        "method_not_allowed": ErrorRow(
            405, invalid, 2, "The path exists, but not for this method."
        ),
        "request_timeout": ErrorRow(
            408, "timeout_error", 6, "The request did not arrive, or not finish, in time."
        ),
        "request_replayed": ErrorRow(
            409, invalid, 2, "This request id was already admitted; it is served once."
        ),
        "request_too_large": ErrorRow(413, invalid, 2, "The body is larger than the limit."),
        "unprocessable": ErrorRow(
            422, invalid, 2, "Well formed, but its parts contradict each other."
        ),
        "offer_changed": ErrorRow(
            422, invalid, 2, "The voucher names an offer that is not, or no longer, valid."
        ),
        # the command line
        "usage": ErrorRow(400, invalid, 2, "The command's arguments do not fit together."),
        "keystore_locked": ErrorRow(
            401, auth, 3, "The keystore could not be unlocked: password missing or wrong."
        ),
        "keystore_permissions": ErrorRow(
            403, "permission_error", 3, "A key file or folder is open to others."
        ),
        "configuration_invalid": ErrorRow(
            400, invalid, 2, "A setting is missing or contradicts another."
        ),
        "model_unsupported": ErrorRow(
            422, invalid, 2, "What was asked cannot be done with a model of this kind."
        ),
        # try again
        "rate_limited": ErrorRow(
            429, "rate_limit_error", 6, "Too many requests; wait and try again."
        ),
        "overloaded": ErrorRow(503, "server_error", 6, "No free slot now; wait or go elsewhere."),
        "draining": ErrorRow(
            503, "server_error", 6, "This process is finishing its requests before it stops."
        ),
        "engine_unavailable": ErrorRow(
            503, "server_error", 6, "The model's engine is not ready or broke off."
        ),
        "no_provider": ErrorRow(503, "server_error", 6, "No provider that fits is healthy now."),
        "provider_unreachable": ErrorRow(503, "server_error", 6, "The provider does not answer."),
        "recorder_unreachable": ErrorRow(503, "server_error", 6, "The recorder does not answer."),
        "chain_unavailable": ErrorRow(
            503, "server_error", 6, "The chain's node does not answer or lags."
        ),
        "store_unavailable": ErrorRow(
            503, "server_error", 6, "The database cannot be written (disk full, locked)."
        ),
        "book_outdated": ErrorRow(
            503, "server_error", 6, "Caller or chain holds what this broker's book does not."
        ),
        "transaction_failed": ErrorRow(
            502, "server_error", 7, "A transaction reverted or was refused."
        ),
        # discard and go elsewhere
        "receipt_invalid": ErrorRow(
            502, "server_error", 8, "A receipt does not match what was asked or received."
        ),
        "response_mismatch": ErrorRow(
            502, "server_error", 8, "The response's hash is not the one that was signed."
        ),
        "offer_invalid": ErrorRow(
            502, "server_error", 8, "An offer is not what its provider registered and signed."
        ),
        "heartbeat_invalid": ErrorRow(
            502, "server_error", 8, "A heartbeat is malformed, old, or not its provider's."
        ),
        "response_malformed": ErrorRow(
            502, "server_error", 8, "The other side's answer cannot be understood."
        ),
        "schema_unmet": ErrorRow(
            502, "server_error", 8, "No answer fitted the JSON schema, and there is no default."
        ),
        "zk_proof_invalid": ErrorRow(
            502, "server_error", 8, "A zero-knowledge proof does not show what was asked."
        ),
        "zk_circuit_invalid": ErrorRow(
            502, "server_error", 8, "A circuit's verification key is that of another model."
        ),
        "proof_invalid": ErrorRow(
            502, "server_error", 8, "A Merkle inclusion proof does not lead to its root."
        ),
        "recorder_dishonest": ErrorRow(
            502, "server_error", 8, "A recorder lied, stalled or forked its chain of heads."
        ),
        "trace_invalid": ErrorRow(
            502, "server_error", 8, "A stored trace is not the one that was noted, or damaged."
        ),
        "model_invalid": ErrorRow(
            502, "server_error", 8, "A model's files are broken, or not those of its manifest."
        ),
        "calibration_invalid": ErrorRow(
            502, "server_error", 8, "A calibration's thresholds do not follow from its figures."
        ),
        "evidence_invalid": ErrorRow(
            502, "server_error", 8, "A file of evidence contradicts itself or its signatures."
        ),
        "audit_failed": ErrorRow(
            502, "server_error", 8, "An audit found that an answer was not made as committed."
        ),
        # we are wrong
        "invariant_broken": ErrorRow(
            500, "server_error", 70, "Our own books contradict themselves; stop."
        ),
        "chain_reorganised": ErrorRow(
            500, "server_error", 70, "The chain changed below the confirmed depth; stop."
        ),
        "internal_error": ErrorRow(500, "server_error", 70, "A defect of Hanse; please report it."),
    }


ERROR_TABLE: dict[str, ErrorRow] = _rows() | {
    code: ErrorRow(502, "server_error", 8, meaning) for code, meaning in ATTESTATION_CODES.items()
}
"""Code -> HTTP status, OpenAI error type, exit code, meaning, contract revert reason."""


@dataclass(frozen=True)
class Shortfall:
    """What a 402 must say: what is needed and what is there, in base units."""

    needed: int
    available: int
    parts: dict[str, int] = field(default_factory=dict)

    def to_details(self) -> dict[str, Any]:
        """JSON-ready, amounts as decimal strings."""
        return {
            "needed": str(self.needed),
            "available": str(self.available),
            "missing": str(max(0, self.needed - self.available)),
            **{name: str(value) for name, value in self.parts.items()},
        }
