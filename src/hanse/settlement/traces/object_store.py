"""Encrypted traces by content hash: in a folder, or any S3-compatible store.

    store = open_object_store("/var/lib/hanse/traces")
    store = open_object_store("s3://bucket/prefix?endpoint=https://minio.lan:9000&region=eu-1")

Credentials for S3 come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY ...) or the
machine's role, never from a URL, which is written into the books. An object's path is made of its
hash's hex digits alone. What comes back is believed only if it hashes to what was asked for: the
store may lie, be slow or be gone, and nothing but the trace is lost.

Source: obstore (Apache Arrow's object_store), decision 20.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from hanse.protocol.errors import RequestError, TransientError, VerificationError
from hanse.protocol.signatures import Hash32, parse_hash32
from hanse.settlement.traces.document import OBJECT_BYTES_MAX, hash_object

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Backend

OBJECT_TIME_S = 30
"""One exchange with the store. Sixteen MiB at 5 Mbit/s."""

LOCATION_CHARS_MAX = 512
"""A store's location; it stands in every note."""

CHUNK_BYTES = 1024 * 1024

CONNECT_TIME_S = 5


class ObjectStore:
    """Objects by content hash. Make one with `open_object_store`."""

    def __init__(self, backend: "Backend", location: str, time_s: float = OBJECT_TIME_S) -> None:
        self._backend = backend
        self._time_s = time_s
        self.location = location

    async def put(self, content: bytes) -> Hash32:
        """Store an object under its hash; storing it again changes nothing.

        Raises:
            TransientError: `store_unavailable`.
        """
        import obstore

        name = hash_object(content)
        async with _refusing(self.location, self._time_s):
            await obstore.put_async(self._backend, _get_path(name), content, use_multipart=False)
        return name

    async def fetch(self, name: Hash32) -> bytes:
        """The object of that hash.

        Raises:
            RequestError: `not_found`.
            TransientError: `store_unavailable`.
            VerificationError: `trace_invalid` if the store serves anything else.
        """
        import obstore

        content = bytearray()
        async with _refusing(self.location, self._time_s):
            found = await obstore.get_async(self._backend, _get_path(name))
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                content += bytes(chunk)
                if len(content) > OBJECT_BYTES_MAX:
                    raise VerificationError(
                        "trace_invalid",
                        f"{self.location} serves more than {OBJECT_BYTES_MAX} bytes for {name}",
                    )
        actual = hash_object(bytes(content))
        if actual != name:
            raise VerificationError(
                "trace_invalid",
                f"{self.location} serves an object of {len(content)} bytes with hash {actual} "
                f"for {name}: it was damaged or exchanged",
            )
        return bytes(content)

    async def has(self, name: Hash32, length_bytes: int) -> bool:
        """Whether an object of that hash and length is there; its bytes are not read.

        Raises:
            TransientError: `store_unavailable`.
        """
        import obstore

        path = _get_path(name)
        try:
            async with _refusing(self.location, self._time_s):
                found = await obstore.head_async(self._backend, path)
        except RequestError:
            return False
        return found["size"] == length_bytes

    async def delete(self, name: Hash32) -> None:
        """Delete an object if it is there. A store that keeps versions keeps its bytes.

        Raises:
            TransientError: `store_unavailable`.
        """
        import obstore

        path = _get_path(name)
        with contextlib.suppress(RequestError):
            async with _refusing(self.location, self._time_s):
                await obstore.delete_async(self._backend, path)


def open_object_store(location: str, time_s: float = OBJECT_TIME_S) -> ObjectStore:
    """A store by its location; nothing is asked of it yet. One exchange takes `time_s` at most.

    Raises:
        RequestError: `configuration_invalid` if the location names no store, or the library for
            it is not installed.
    """
    if not location or len(location) > LOCATION_CHARS_MAX or not location.isprintable():
        raise _invalid(location, f"is empty or longer than {LOCATION_CHARS_MAX} characters")
    try:
        from obstore.exceptions import BaseError
        from obstore.store import LocalStore
    except ImportError:
        raise RequestError(
            "configuration_invalid",
            "traces need the library obstore: pip install 'hanse[traces]'",
        ) from None
    try:
        if location.startswith("s3://"):
            return ObjectStore(_open_s3(location), location, time_s)
        if "://" in location:
            raise _invalid(location, "is neither a folder nor s3://BUCKET/PREFIX")
        folder = Path(location).expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ObjectStore(LocalStore(folder), str(folder), time_s)
    except (BaseError, OSError, ValueError) as error:
        raise _invalid(location, f"cannot be opened ({type(error).__name__})") from None


def open_memory_store() -> ObjectStore:
    """A store that ends with its process, for tests and trials."""
    from obstore.store import MemoryStore

    return ObjectStore(MemoryStore(), "memory")


def _open_s3(location: str) -> "Backend":
    from obstore.store import S3Store

    url = urlsplit(location)
    if not url.hostname or "@" in url.netloc:
        raise _invalid(location, "must be s3://BUCKET/PREFIX without credentials in it")
    asked = parse_qs(url.query, strict_parsing=bool(url.query))
    unknown = sorted(set(asked) - {"endpoint", "region"})
    if unknown:
        raise _invalid(location, f"has the unknown setting {unknown[0]!r}; endpoint and region are")
    config: dict[str, Any] = {name: values[-1] for name, values in asked.items()}
    endpoint = urlsplit(config.get("endpoint", ""))
    if "@" in endpoint.netloc:
        raise _invalid(location, "must be without credentials")
    return S3Store(
        url.hostname,
        prefix=url.path.strip("/") or None,
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_TIME_S),
            "timeout": timedelta(seconds=OBJECT_TIME_S),
            "allow_http": endpoint.scheme == "http",
        },
        # The writer tries again by itself, and counts it.
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=OBJECT_TIME_S)},
        **config,
    )


def _get_path(name: Hash32) -> str:
    digits = parse_hash32(name, "trace_hash")[2:]  # hex digits lead out of no folder
    return f"{digits[:2]}/{digits}"


@contextlib.asynccontextmanager
async def _refusing(location: str, time_s: float) -> AsyncIterator[None]:
    """Bound the time, since a server may drip, or break off again and again.

    What went wrong is said by its kind only: a store's own text may hold what it likes.
    """
    from obstore.exceptions import BaseError, NotFoundError

    try:
        async with asyncio.timeout(time_s):
            yield
    except (NotFoundError, FileNotFoundError):
        raise RequestError("not_found", f"{location} does not have that object") from None
    except (BaseError, OSError) as error:  # a TimeoutError is an OSError
        raise TransientError(
            "store_unavailable", f"{location} does not take or give it: {type(error).__name__}"
        ) from None


def _invalid(location: str, reason: str) -> RequestError:
    # What may be a credential is not repeated.
    shown = location.split("?")[0].split("@")[-1]
    return RequestError("configuration_invalid", f"the traces' store {shown!r:.120} {reason}")
