"""Which offers of class `tee` may be chosen: those whose machine was verified."""

from hanse.market.attested.book import AttestedBook

__all__ = ["AttestedBook"]
