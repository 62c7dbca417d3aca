"""The tables of the documentation from a report: `python -m benchmarks.auditing.tables FOLDER`.

Reads report.jsonl, which `make bench-audit REPORT=1 FOLDER=...` writes, and prints Markdown: pairs
of runtimes, honest answers by kind, cheats by rung and tokens, and what is kept.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.auditing.report import POINTS
from benchmarks.auditing.whole import REPORT

Line = dict[str, Any]

LABELS = {
    "quantise": "quantise: Q4_0 for Q8_0",
    "skip-layer": "skip-layer: one of 30",
    "swap": "swap: 10 of 30 layers skipped",
}
RUNGS = ("V0", "V2", "V3")


def make_tables(lines: Sequence[Line]) -> Iterator[str]:
    """Each table as Markdown."""
    cheats: dict[tuple[str, str], dict[int, Line]] = {}
    for line in lines:
        if "cheat" in line:
            cheats.setdefault((line["cheat"], line["rung"]), {})[line["tokens"]] = line
    yield _show_pairs([line for line in lines if "calibrated_on" in line and line["answers"]])
    yield _show_honest([line for line in lines if "honest" in line and line["answers"]])
    yield _show_found(cheats)
    yield _show_verdicts(cheats)
    yield _show_kept([line for line in lines if "kept" in line])


def _show_pairs(pairs: Sequence[Line]) -> str:
    rows = []
    for one in pairs:
        limits, worst = (
            ", ".join(f"{one[name].get(f'fingerprint/{block}', 0):.3f}" for block in (4, 16, 64)
                      if f"fingerprint/{block}" in one[name])
            for name in ("limits", "worst_held_out")
        )  # fmt: skip
        rows.append((
            one["pair"], f"{one['calibrated_on']:,}", limits, f"{one['answers']:,}", worst,
            f"{one['worst_over_limit']:.2f}", str(one["above_fingerprint"]),
            str(one["above"] - one["above_fingerprint"]), str(one["penalties"]),
            f"{100 * one['rate_at_most']:.2g} %",
        ))  # fmt: skip
    head = (
        "served -> audited", "calibrated on", "thresholds over 4, 16 (64)", "held-out answers",
        "worst of them", "over its threshold at most", "above one: V3", "V2 only", "penalties",
        "rate, 95 %",
    )  # fmt: skip
    return _make(head, rows)


def _show_honest(slices: Sequence[Line]) -> str:
    rows = [
        (
            f"{one['honest']}: {one['is'].strip()}", f"{one['answers']:,}",
            str(one["above_fingerprint"]), str(one["above"] - one["above_fingerprint"]),
            str(one["penalties"]), f"{one['worst_over_limit']:.2f}",
        )
        for one in slices
    ]  # fmt: skip
    head = ("held-out", "answers", "above: V3", "V2 only", "penalties", "worst, over its threshold")
    return _make(head, rows)


def _show_found(cheats: dict[tuple[str, str], dict[int, Line]]) -> str:
    """How many of how many groups; in brackets the power that they show."""
    rows = [
        (LABELS.get(name, name), rung, *(_count(by_tokens.get(point)) for point in POINTS))
        for (name, rung), by_tokens in cheats.items()
        if rung in RUNGS
    ]
    return _make(("cheat", "rung", *(f"within {point:,}" for point in POINTS)), rows)


def _count(line: Line | None) -> str:
    if line is None:
        return ""
    found = round(line["detected"] * line["groups"]) if "found" not in line else line["found"]
    if not found:
        return f"0 of {line['groups']:,}"
    return f"{found:,} of {line['groups']:,} ({line['power_at_least']:.4f})"


def _show_verdicts(cheats: dict[tuple[str, str], dict[int, Line]]) -> str:
    rows = [
        (
            LABELS.get(name, name),
            *(f"{by_tokens[point]['penalised']:.3f}" for point in POINTS[1:] if point in by_tokens),
        )
        for (name, rung), by_tokens in cheats.items()
        if rung == "V3"
    ]
    return _make(("verdict `cheat`", *(f"within {point:,}" for point in POINTS[1:])), rows)


def _show_kept(lines: Sequence[Line]) -> str:
    rows = [
        (
            one["kept"].removeprefix("answers of "), f"{one['answers']:,}",
            f"{one['bytes_per_token']:.2f}", f"{one['worst']:.2f}",
            f"{one['bytes_per_token_sent']:.2f}", f"{one['us_per_answer']:.0f} us",
        )
        for one in lines
    ]  # fmt: skip
    head = ("tokens", "answers", "kept, a token", "worst answer", "sent, a token", "to keep one")
    return _make(head, rows)


def _make(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(one) + " |" for one in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    with (parser.parse_args().folder / REPORT).open() as file:
        print("\n\n".join(make_tables([json.loads(line) for line in file])))


if __name__ == "__main__":
    main()
