"""What smaller files cost: each is held against its source over one text.

The text that ships (`reading.txt`) is our own and short: prose, talk, code, JSON, a list and some
German, about 1,500 tokens. It tells types apart, and says nothing about other languages or tasks;
`--text` takes one that is nearer to what the model is for.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hanse.models.inspecting import get_quantisation
from hanse.models.opening import open_model
from hanse.models.quantising.calling import run_job
from hanse.models.quantising.scoring import Score
from hanse.models.quantising.worker import ScoreJob
from hanse.models.tensors import Progress
from hanse.protocol.errors import RequestError

OWN_TEXT = Path(__file__).with_name("reading.txt")
TEXT_BYTES_MAX = 16 * 2**20
"""Of a text; 1,024 tokens take some 5 kB."""


@dataclass(frozen=True)
class FileCost:
    """One file, its size, and how it did.

    `size_bytes` is the whole file's, header included; bits are over the tensors, times 100.
    """

    path: Path
    quantisation: str
    size_bytes: int
    bits_per_weight_x100: int
    score: Score


def measure_files(
    paths: Sequence[Path],
    *,
    text: str,
    tokens_max: int,
    threads: int,
    progress: Progress | None = None,
) -> list[FileCost]:
    """Each file's costs; the first is the source that the others are held against.

    The source's log probabilities are kept in a temporary file meanwhile: 4 bytes for each token of
    the vocabulary at each token of the text (200 MB for 1,024 tokens and 49,152 words).

    Raises:
        RequestError: `unprocessable`, llama.cpp could not run one of them.
    """
    measured: list[FileCost] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, path in enumerate(paths):
            files, header = open_model(path)
            name = get_quantisation(header)

            def tell(text: str, share: float, index: int = index, name: str = name) -> None:
                if progress:
                    progress(f"{text} as {name}", (index + share) / len(paths))

            job = ScoreJob(
                model=str(path),
                text=text,
                tokens_max=tokens_max,
                threads=threads,
                reference=str(Path(folder) / "reference"),
                role="candidate" if index else "source",
            )
            tell("loading", 0.0)
            score = msgspec.convert(run_job(job, tell), Score)
            bits = round(800 * header.size_bytes / max(1, header.weights))
            size_bytes = sum(file.stat().st_size for file in files.paths)
            measured.append(FileCost(path, name, size_bytes, bits, score))
    return measured


def read_text(path: Path | None) -> str:
    """The text to read: the one that ships, or a file's.

    Raises:
        RequestError: `not_found` or `invalid_request`, the file cannot be used.
    """
    try:
        with (path or OWN_TEXT).open("rb") as file:
            data = file.read(TEXT_BYTES_MAX + 1)
        if len(data) > TEXT_BYTES_MAX:
            raise RequestError(
                "invalid_request", f"{path} is longer than {TEXT_BYTES_MAX} bytes.", param="text"
            )
        return data.decode()
    except OSError as error:
        raise RequestError("not_found", f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RequestError("invalid_request", f"{path} is not UTF-8.", param="text") from error
