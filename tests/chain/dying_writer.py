"""A process that ends, or cannot go on, in the middle of writing a file."""

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import resource, signal, sys
from pathlib import Path
{imports}
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.{handler})
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_max}, {bytes_max}))
{call}
"""


def write_and_fail(path: Path, imports: str, call: str, *, dies: bool, bytes_max: int = 5) -> None:
    """Run `call`, which writes to `path`; the kernel lets no file grow past `bytes_max`.

    With `dies` it ends the process at the byte after that, else it refuses it as a full disk does.
    """
    handler = "SIG_DFL" if dies else "SIG_IGN"
    program = _PROGRAM.format(imports=imports, call=call, handler=handler, bytes_max=bytes_max)
    ended = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)], capture_output=True, text=True
    )
    assert (ended.returncode < 0) if dies else "File too large" in ended.stderr, ended.stderr
