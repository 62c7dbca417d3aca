"""The garbage collector of a process that serves for long.

What a started server holds (modules, schemas, prepared statements) lives as long as it does, and
would be walked through again and again for the few objects that a request makes: 1 to 9 % of a
request's processor time (`docs/measurements.md`). What is there once serving begins is set aside,
and the rest is looked at less often. Objects without cycles, which is nearly all, are freed at once
as before.
"""

import gc

YOUNG_OBJECTS_MAX = 10_000
"""Tracked objects made and not freed before the collector looks, instead of 700: about 1 MB."""


def set_started_aside() -> None:
    """Call once, when everything is open and the first request may come."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 20)
