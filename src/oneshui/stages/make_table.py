"""From metrics to a table: without torch, without data, in a second or two."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from oneshui.files import write_text
from oneshui.report import tables
from oneshui.report.tables import read_csv
from oneshui.report.write import to_latex, to_markdown
from oneshui.schemas import METRICS, read_table


def make_table(
    metrics_paths: Sequence[str | Path],
    published_path: str | Path | None,
    attacks_path: str | Path | None,
    output_csv: str | Path,
    output_tidy: str | Path,
    output_md: str | Path,
    output_tex: str | Path,
    *,
    name: str,
    spec: Mapping[str, Any],
    seeds: Sequence[int],
    data_methods: Sequence[str],
) -> None:
    """Write a result table as CSV, Markdown and LaTeX.

    Args:
        metrics_paths: metrics of all models of the table, in any order.
        published_path: CSV of the published results, or None.
        attacks_path: what ``summarise_attacks`` wrote, or None.
        output_csv: all numbers, in percent, one row per setting and model.
        output_tidy: the same, one number in a row.
        output_md: the table to read.
        output_tex: the table for a paper.
        name: name of the table in the config, for error messages.
        spec: ``{title, blocks, methods, decimals, privacy}``.
        seeds: the seeds that every row must have.
        data_methods: methods that need the training data at unlearning time.

    Raises:
        DataError: a file is damaged, or metrics contradict each other.
        ConfigError: ``spec`` or ``seeds`` lack something.
    """
    frames = [read_table(path, METRICS)[0] for path in metrics_paths]
    metrics = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(METRICS.columns))
    published = None if published_path is None else read_csv(published_path)
    spec = {"title": name, **spec}
    summary = None if attacks_path is None else read_csv(attacks_path)
    table = tables.make_table(metrics, spec, published, summary, seeds=seeds, data_methods=data_methods)
    write_text(output_csv, tables.to_csv(table))
    write_text(output_tidy, tables.to_tidy_csv(table))
    write_text(output_md, to_markdown(table, spec, seeds=seeds))
    write_text(output_tex, to_latex(table, spec, seeds=seeds))
