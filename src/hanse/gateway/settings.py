"""What a gateway can be told, each with its default, its unit and the reason for its limit.

The whole of it is one frozen struct; whoever starts a gateway (the command line, a test) fills it.
Limits that both sides of the market must agree on stand in `hanse.protocol.limits` instead.
"""

import msgspec

from hanse.market import Policy
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX

DISCARD_BYTES_MAX = 64 * 1024 * 1024
"""Of a body that is too large, so much is still read and thrown away, so that the client is done
sending when the 413 comes and can read it; past that the connection is closed.
"""

KEY_NAME_CHARS_MAX = 64
"""An API key's name: a label for people."""

KEYS_MAX = 100_000
"""API keys held in memory, about 200 bytes each."""

CANNED_CHARS_MAX = 4_096
"""A sentence or two for people, held in memory and sent as one frame."""

ORIGINS_MAX = 32
"""Browser origins that may be allowed; more is a configuration that nobody reads."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one gateway listens and what it bounds.

    Attributes:
        host: address to listen on. Loopback by default: the gateway spends its owner's money.
        port: TCP port; 0 lets the system choose one.
        shared_port: whether another gateway may listen on the same port, so that a new process can
            take over before the old one has finished.
        body_bytes_max: largest request body, refused with 413 above it.
        body_bytes_in_flight_max: bodies held at once, over all requests at work; above it 503
            `overloaded`, as above a quarter of it for one API key. Without it one key could have
            4 GiB held.
        body_read_s: time for a request body to arrive in full, refused with 408 after it.
        send_stall_s: how long an application may leave a full send buffer untouched before it
            counts as gone and its request is cancelled.
        requests_max: requests at work at once; those above it wait in the queue.
        queue_max: requests that wait in the queue; above it 429 `rate_limited`.
        queue_wait_s: how long one waits there at most; then 429 with `Retry-After`.
        connections_max: open connections, idle ones included; more are refused with 503.
        keep_alive_s: how long an idle connection is kept.
        drain_s: at SIGTERM, how long the requests at work may take to finish; then they are
            cancelled, and what was delivered of them is paid.
        retry_after_s: what a 503 of this gateway tells clients to wait.
        keys_refresh_s: how soon a key revoked by another process stops working here.
        money_look_s: between looks at the owner's money, for alarms and metrics; each takes some
            reads of the chain's node.
        allowed_origins: browser origins that may call (CORS), such as `https://app.example`; `*`
            is any. Empty: none, and preflights are refused.
        wallet_key: name of the paying key in its home, for the commands that a 402 advises.
        policy: what counts how much in the choice of a provider; None leaves that, and the next
            two, as the market's client was opened with.
        region: where this gateway is, for the weight of locality; empty for nowhere.
        trial_share: of the requests, how many may try a fresh provider; 0 for none.
        structured_then: what follows an answer that does not fit the request's JSON schema, once:
            `repair` (its model is shown what is wrong) or `elsewhere` (another provider).
        market_wait_s: how long the market is asked again while nobody can be asked; 0 for not.
        silence_s: how long a provider may send nothing amid a stream; then another goes on.
        first_token_s: the same before its first token, which may wait for a prompt or a model.
        turns_max: other providers that one answer may be taken to after one had begun it.
        hedge_after_s: how late a first token may be before a second provider is asked as well; 0
            for never. The slower one is hung up on and paid for what it had delivered.
        fallback_url: an OpenAI-compatible server that answers when the market has nothing.
        fallback_model: the model to ask of it; empty for the one that was asked for.
        canned_text: a sentence that answers when that does not either; empty for none.
        telemetry_url: OTLP collector of traces, such as `http://127.0.0.1:4318/v1/traces`;
            empty for none. Needs the extra `telemetry`.
        telemetry_share: of the requests that no application traces, those that are traced.
        telemetry_to_providers: whether providers get a `traceparent`, by which they could tell
            which requests belong together.
        access_log: one line a request, never with content or keys. Off by default.
    """

    host: str = "127.0.0.1"
    port: int = 8440
    shared_port: bool = False
    body_bytes_max: int = REQUEST_BODY_BYTES_MAX
    body_bytes_in_flight_max: int = 256 * 1024 * 1024
    body_read_s: float = 30.0
    send_stall_s: float = 60.0
    requests_max: int = 1_024
    queue_max: int = 1_024
    queue_wait_s: float = 30.0
    connections_max: int = 4_096
    keep_alive_s: int = 75
    drain_s: float = 60.0
    retry_after_s: int = 2
    keys_refresh_s: float = 1.0
    money_look_s: float = 60.0
    allowed_origins: tuple[str, ...] = ()
    wallet_key: str = "user"
    policy: Policy | None = None
    region: str = ""
    trial_share: float = 0.02
    structured_then: str = "repair"
    market_wait_s: float = 1.0
    silence_s: float = 30.0
    first_token_s: float = 120.0
    turns_max: int = 2
    hedge_after_s: float = 0.0
    fallback_url: str = ""
    fallback_model: str = ""
    canned_text: str = ""
    telemetry_url: str = ""
    telemetry_share: float = 1.0
    telemetry_to_providers: bool = False
    access_log: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not work.

        Raises:
            RequestError: `configuration_invalid`, naming the setting.
        """
        if not 0 <= self.port <= 65_535:
            _refuse("port", self.port, "0 .. 65535")
        if not 0 < self.body_bytes_max <= REQUEST_BODY_BYTES_MAX:
            _refuse("body_bytes_max", self.body_bytes_max, f"1 .. {REQUEST_BODY_BYTES_MAX}")
        if self.body_bytes_in_flight_max < self.body_bytes_max:
            _refuse(
                "body_bytes_in_flight_max",
                self.body_bytes_in_flight_max,
                f"at least body_bytes_max, {self.body_bytes_max}",
            )
        for name in (
            "body_read_s",
            "send_stall_s",
            "requests_max",
            "queue_wait_s",
            "silence_s",
            "first_token_s",
            "connections_max",
            "keep_alive_s",
            "drain_s",
            "retry_after_s",
            "keys_refresh_s",
            "money_look_s",
        ):
            if not 0 < getattr(self, name) <= 1_000_000:
                _refuse(name, getattr(self, name), "above 0 and at most 1000000")
        for name in ("trial_share", "telemetry_share"):
            if not 0 <= getattr(self, name) <= 1:
                _refuse(name, getattr(self, name), "0 .. 1")
        if self.telemetry_url and not self.telemetry_url.startswith(("http://", "https://")):
            _refuse("telemetry_url", self.telemetry_url, "http://... or https://...")
        if self.structured_then not in ("repair", "elsewhere"):
            _refuse("structured_then", self.structured_then, "repair or elsewhere")
        for name, most in (
            ("queue_max", 1_000_000),
            ("turns_max", 16),
            ("hedge_after_s", 600),
            ("market_wait_s", 600),
        ):
            if not 0 <= getattr(self, name) <= most:
                _refuse(name, getattr(self, name), f"0 .. {most}")
        if len(self.canned_text) > CANNED_CHARS_MAX:
            _refuse("canned_text", self.canned_text, f"at most {CANNED_CHARS_MAX} characters")
        if self.fallback_url and not self.fallback_url.startswith(("http://", "https://")):
            _refuse("fallback_url", self.fallback_url, "such as http://127.0.0.1:8080/v1")
        if len(self.allowed_origins) > ORIGINS_MAX:
            _refuse("allowed_origins", len(self.allowed_origins), f"at most {ORIGINS_MAX} of them")
        for origin in self.allowed_origins:
            scheme, _, rest = origin.partition("://")
            named = scheme in ("http", "https") and rest and "/" not in rest
            if origin != "*" and not (named and origin.isascii() and origin.isprintable()):
                _refuse("allowed_origins", origin, "scheme://host[:port] without a path, or *")


def _refuse(name: str, value: object, expected: str) -> None:
    raise RequestError(
        "configuration_invalid", f"{name} is {value!r:.80}, expected {expected}", param=name
    )
