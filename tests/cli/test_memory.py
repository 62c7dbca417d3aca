"""What a long-running process does to its garbage collector, tried in a process of its own."""

import subprocess
import sys

SCRIPT = """
import gc, weakref
from hanse.cli.memory import YOUNG_OBJECTS_MAX, set_started_aside

class Node:
    pass

set_started_aside()
assert gc.get_freeze_count() > 1_000, gc.get_freeze_count()
node = Node()
node.itself, seen = node, weakref.ref(node)
del node
heap = [[] for _ in range(2 * YOUNG_OBJECTS_MAX)]
assert seen() is None, "what was made afterwards must still be collected"
"""


def test_what_was_there_is_set_aside_and_later_cycles_are_collected() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
