"""Fixtures of the tests of settlement."""

from collections.abc import Iterator

import pytest

from tests.settlement.trace_parts import S3Server, run_s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3-speaking server for the session; it starts with the first test that needs it."""
    with run_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same, with credentials where S3's clients look for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return s3_server
