"""What can be bought: the paid operations, at which path, under which type of service.

Both sides read this one table: engines and brokers by the operation, gateway and buyers by its
path, offers and the market by its service type.

Source: OpenAI's API reference; `docs/protocol.md`, section "On the wire".
"""

from enum import StrEnum


class Operation(StrEnum):
    """A paid operation; the value is the OpenAI path below `/v1`."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDINGS = "embeddings"

    @property
    def path(self) -> str:
        """The OpenAI path, as in `/v1/chat/completions`."""
        return f"/v1/{self.value}"

    @property
    def service_type(self) -> str:
        """Of the offers that sell it."""
        return "embeddings" if self is Operation.EMBEDDINGS else "chat"


OPERATIONS_BY_PATH = {operation.path: operation for operation in Operation}

SERVICE_TYPES = tuple(dict.fromkeys(operation.service_type for operation in Operation))
"""Of all offers: `chat` (chat and plain completions), `embeddings`."""
