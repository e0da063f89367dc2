"""From metrics to tables and figures: without torch, without data, in a second or two."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oneshui.errors import CheckpointError, ConfigError, DataError
from oneshui.files import read_header, write_text
from oneshui.metrics.measure import MEASURES
from oneshui.report import attacks, tables
from oneshui.report.latex import to_latex
from oneshui.report.markdown import to_markdown
from oneshui.schemas import ATTACK, IDENTITIES, METRICS, SPLITS, read_table

#: .../{dataset}/seed{seed}/pretrain.safetensors or .../{dataset}/n{n}/seed{seed}/retrain.safetensors
_MODEL_PATH = re.compile(r"(?P<dataset>[^/]+)/(?:n(?P<n>\d+)/)?seed(?P<seed>\d+)/(?P<role>[^/]+)\.safetensors$")


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
        output_csv: all numbers, in percent, one row per block and model.
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
    published = None if published_path is None else _read_csv(published_path)
    spec = {"title": name, **spec}
    summary = None if attacks_path is None else _read_csv(attacks_path)
    table = tables.make_table(metrics, spec, published, summary, seeds=seeds, data_methods=data_methods)
    write_text(output_csv, tables.to_csv(table))
    write_text(output_tidy, tables.to_tidy_csv(table))
    write_text(output_md, to_markdown(table, spec, seeds=seeds))
    write_text(output_tex, to_latex(table, spec))


def summarise_attacks(attack_paths: Sequence[str | Path], output_path: str | Path, *, seeds: Sequence[int]) -> None:
    """Write rates and areas of attacks on the models of a table as tidy CSV, by seed and pooled.

    Raises:
        DataError: a file is damaged, or two are of the same model and seed.
    """
    summary = attacks.summarise((read_table(path, ATTACK) for path in attack_paths), seeds=seeds)
    write_text(output_path, summary.to_csv(index=False, lineterminator="\n"))


def make_figure(
    inputs: Sequence[str | Path],
    output_pdf: str | Path,
    output_png: str | Path,
    output_csv: str | Path,
    *,
    name: str,
    spec: Mapping[str, Any],
    rows: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Write a figure as PDF and PNG, and its points as CSV.

    Args:
        inputs: for ``table_bars`` the CSV of one table, then the metric files whose single seeds are shown as dots; for
            ``training_curves`` the models; for ``roc`` attacks; for ``hardness`` and ``harm`` the CSV of one table,
            which says who is best, then what is known of single identities.
        output_pdf: the figure for a paper.
        output_png: the figure for a screen.
        output_csv: the plotted points.
        name: name of the figure in the config, for error messages.
        spec: ``kind``, and ``blocks`` for hardness and harm.
        rows: models of the figure's table, in order.
        seeds: of the table.

    Raises:
        ConfigError: the kind is unknown, or does not fit the inputs.
        DataError: an input is damaged.
        CheckpointError: a model has no training history.
    """
    # imported here because tables need no matplotlib, which takes half of their time
    from oneshui.report import figures, identity_figures, roc_figure

    kind = spec.get("kind")
    if kind in ("table_bars", "hardness", "harm") and not inputs:
        raise ConfigError(f"figure {name!r}: {kind} needs the CSV of a table, but has no input")
    if kind == "table_bars":
        figure, points = figures.table_bars(_read_csv(inputs[0]), _seed_values(inputs[1:]))
    elif kind == "training_curves":
        figure, points = figures.training_curves([read_history(path) for path in inputs])
    elif kind == "roc":
        figure, points = roc_figure.roc_curves([read_table(path, ATTACK) for path in inputs], rows=rows, seeds=seeds)
    elif kind in ("hardness", "harm"):
        table = _read_csv(inputs[0])
        blocks = spec.get("blocks") or table[["dataset", "n"]].drop_duplicates().to_dict("records")
        keys = [(str(block["dataset"]), int(block["n"])) for block in blocks]
        best = {key: identity_figures.top_methods(table, *key) for key in keys}
        draw = identity_figures.hardness if kind == "hardness" else identity_figures.harm
        figure, points = draw([read_table(path, IDENTITIES) for path in inputs[1:]], best, seeds)
    else:
        raise ConfigError(
            f"figure {name!r}: kind is {kind!r}, allowed: table_bars, training_curves, roc, hardness, harm"
        )
    figures.save_figure(figure, points, output_pdf, path_png=output_png, path_csv=output_csv)


def make_faces_figure(
    identity_paths: Sequence[str | Path],
    splits_paths: Sequence[str | Path],
    images_path: str | Path,
    output_pdf: str | Path,
    output_png: str | Path,
    output_csv: str | Path,
    *,
    name: str,
    spec: Mapping[str, Any],
) -> None:
    """Write a figure of the identities whose photo is least like their other images. It shows faces.

    Args:
        identity_paths: what is known of single identities.
        splits_paths: of the seeds.
        images_path: packed images of the dataset.
        output_pdf: the figure for a paper.
        output_png: the figure for a screen.
        output_csv: identities and distances.
        name: name of the figure in the config, for error messages.
        spec: ``blocks`` with one dataset and n; ``show_faces`` must be true.

    Raises:
        ConfigError: nobody asked to see faces.
        DataError: an input is damaged, or nobody is there to show.
    """
    from oneshui.report import figures, identity_figures

    if not spec.get("show_faces"):
        raise ConfigError(f"figure {name!r} shows faces. Set its show_faces: true if you may show them.")
    (block,) = spec["blocks"]
    tables = [read_table(path, IDENTITIES) for path in identity_paths]
    chosen = identity_figures.hardest_identities(tables, str(block["dataset"]), int(block["n"]))
    splits = {int(meta["seed"]): frame for frame, meta in (read_table(path, SPLITS) for path in splits_paths)}
    pixels = np.load(images_path, mmap_mode="r", allow_pickle=False)
    shown = []
    for seed, identity in zip(chosen["seed"], chosen["identity"], strict=True):
        own = splits[seed][splits[seed]["identity"] == identity].sort_values("image_id")
        is_support = own["is_support"].to_numpy(dtype=bool)
        photo, others = own.loc[is_support, "image_id"].to_numpy(), own.loc[~is_support, "image_id"].to_numpy()
        shown.append((np.asarray(pixels[photo[0]]), np.asarray(pixels[others])))
    figure, points = identity_figures.hardest(chosen, shown)
    figures.save_figure(figure, points, output_pdf, path_png=output_png, path_csv=output_csv)


def _seed_values(metrics_paths: Sequence[str | Path]) -> pd.DataFrame | None:
    """Return what single seeds reached, in percent: one row per dataset, n, method and seed, without controls."""
    if not metrics_paths:
        return None
    metrics = pd.concat([read_table(path, METRICS)[0] for path in metrics_paths])
    own = metrics["origin"] != "wrong_photos"
    chosen = metrics[own & metrics["metric"].isin([*MEASURES.values(), "tow"])]
    wide = chosen.assign(quantity=chosen["split"].where(chosen["metric"] != "tow", "tow")).pivot(
        index=["dataset", "n", "method", "seed"], columns="quantity", values="value"
    )
    return (100 * wide.reindex(columns=["retain", "forget", "test", "tow"])).reset_index()


def read_history(path: str | Path) -> dict[str, Any]:
    """Return how a model was trained, from the header of its file, with the run that the path names.

    Raises:
        DataError: the file is damaged, or its path names no run.
        CheckpointError: the file has no training history.
    """
    match = _MODEL_PATH.search(Path(path).as_posix())
    if match is None:
        raise DataError(
            f"{path} names no run, allowed: {{dataset}}/seed{{seed}}/pretrain.safetensors or "
            "{dataset}/n{n}/seed{seed}/retrain.safetensors"
        )
    metadata = read_header(path)
    try:
        training = metadata["training"]
        parts = {key: training[key] for key in ("history", "best_epoch", "measure")}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} has no training history in its header ({error!r}). Delete it to train the model again."
        ) from error
    dataset, n, seed, role = match.group("dataset", "n", "seed", "role")
    label = "/".join(part for part in (dataset, n and f"n{n}", f"seed{seed}", role) if part)
    return {"label": label, "dataset": dataset, "n": n and int(n), "seed": int(seed), "role": role, **parts}


def _read_csv(path: str | Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path} is not a readable CSV file ({error}). Make it again.") from error
