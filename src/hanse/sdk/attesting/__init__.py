"""Verifies the machines behind offers of class `tee`, before the first request and again later."""

from hanse.sdk.attesting.rounds import Attestations

__all__ = ["Attestations"]
