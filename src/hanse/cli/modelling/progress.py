"""A bar on standard error for long work, in steps or as a share; nothing with `--json`."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hanse.cli.output import Output
from hanse.models.tensors import Progress

QUIET_S = 0.1
"""Between two drawings; work may report each tensor."""


@contextmanager
def show_progress(output: Output) -> Iterator[Progress]:
    """Give a function that draws what is being done and how far it is (0 to 1)."""
    if output.as_json or not sys.stderr.isatty():
        with _say_each(output) as say:
            yield say
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = output.console(stderr=True)
    with Bars(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        task, drawn = bars.add_task("", total=1.0), [0.0]

        def draw(text: str, share: float) -> None:
            now = time.monotonic()
            if now - drawn[0] >= QUIET_S or share >= 1:
                drawn[0] = now
                bars.update(task, description=text, completed=share)

        yield draw


@contextmanager
def _say_each(output: Output) -> Iterator[Progress]:
    """In a pipe: a line for each new thing that is being done."""
    said = [""]

    def say(text: str, _: float) -> None:
        if text != said[0]:
            said[0] = text
            output.note(text)

    yield say
