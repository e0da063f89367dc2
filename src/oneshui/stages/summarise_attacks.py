"""From attacks on single models to rates and areas of a table: without torch."""

from collections.abc import Sequence
from pathlib import Path

from oneshui.files import write_text
from oneshui.report import attacks
from oneshui.schemas import ATTACK, read_table


def summarise_attacks(attack_paths: Sequence[str | Path], output_path: str | Path, *, seeds: Sequence[int]) -> None:
    """Write rates and areas of attacks on the models of a table as tidy CSV, by seed and pooled.

    Raises:
        DataError: a file is damaged, or two are of the same model and seed.
    """
    summary = attacks.summarise((read_table(path, ATTACK) for path in attack_paths), seeds=seeds)
    write_text(output_path, summary.to_csv(index=False, lineterminator="\n"))
