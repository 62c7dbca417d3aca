"""Times as people read them: the local date, and how long until then."""

from datetime import UTC, datetime


def format_time(time_s: int) -> str:
    """A unix time in this machine's zone, to the second."""
    return datetime.fromtimestamp(time_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_until(time_s: int, now_s: int) -> str:
    """How long it is until then, to the largest two units: `1 d 4 h`."""
    left = time_s - now_s
    if left <= 0:
        return "now"
    parts = []
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {name}")
    return "in " + " ".join(parts[:2])
