"""Training curves: loss and measure of models against the epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from oneshui.errors import CheckpointError, ConfigError, DataError
from oneshui.files import read_header
from oneshui.report.style import DATASET_NAMES, DOUBLE_COLUMN, MEASURE_NAMES, RC, RUN_COLOURS, legend_columns

_CURVE_COLUMNS = ("epoch", "train_loss", "train_measure", "val_loss", "val_measure")
#: dashes of the retrained models, one pattern per n in ascending order
_DASHES: tuple[Any, ...] = ((0, (4, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.2, 1.2, 1.2)), (0, (7, 1.5)))


def from_files(
    inputs: Sequence[str | Path], *, spec: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int]
) -> tuple[Figure, pd.DataFrame]:
    """Draw the training histories in the headers of models."""
    return training_curves([read_history(path) for path in inputs])


def read_history(path: str | Path) -> dict[str, Any]:
    """Return how a model was trained, and which it is, from the header of its file.

    Raises:
        DataError: the file is damaged.
        CheckpointError: the header has no training history, or does not say whose.
    """
    header = read_header(path)
    try:
        training = header["training"]
        parts = {key: training[key] for key in ("history", "best_epoch", "measure")}
        dataset, n, seed, role = (header[key] for key in ("dataset", "n", "seed", "role"))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} has no training history in its header ({error!r}). Delete it to train the model again."
        ) from error
    label = "/".join(part for part in (dataset, n and f"n{n}", f"seed{seed}", role) if part)
    return {"label": label, "dataset": dataset, "n": n, "seed": seed, "role": role, **parts}


def training_curves(histories: Sequence[Mapping[str, Any]]) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of how models were trained, and the points in it.

    Left the training loss, right the measure on training (thin) and validation images (thick) against the epoch. A
    colour is a dataset and seed; original models are solid, retrained ones dashed. A dot marks the best epoch.

    Args:
        histories: per model ``label``, ``dataset``, ``seed``, ``n`` (None for an original model), ``role``,
            ``measure``, ``best_epoch`` and ``history``, a list with ``epoch``, ``train_loss``, ``train_measure``,
            ``val_loss`` and ``val_measure`` per epoch. Measures are fractions.

    Returns:
        The figure, and the points: one row per model and epoch, as they were given.

    Raises:
        DataError: there is no model, or a history is empty or lacks a value.
        ConfigError: there are more runs than colours.
    """
    points = _curve_points(histories)
    runs = list(dict.fromkeys((str(each["dataset"]), int(each["seed"])) for each in histories))
    if len(runs) > len(RUN_COLOURS):
        raise ConfigError(f"a figure of training curves has {len(runs)} runs, allowed: {len(RUN_COLOURS)}. Split it.")
    colours = dict(zip(runs, RUN_COLOURS, strict=False))
    sizes = sorted({int(each["n"]) for each in histories if each["n"] is not None})
    dashes = {n: _DASHES[i % len(_DASHES)] for i, n in enumerate(sizes)}
    with rc_context(RC):
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        for each in histories:
            colour = colours[str(each["dataset"]), int(each["seed"])]
            style = "-" if each["n"] is None else dashes[int(each["n"])]
            _draw_curve(left, right, points[points["model"] == each["label"]], colour, style)
        left.set_ylabel("training loss (nats)")
        measures = dict.fromkeys(MEASURE_NAMES.get(str(each["measure"]), str(each["measure"])) for each in histories)
        right.set_ylabel(f"{' or '.join(measures)} (%)")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.grid(axis="y")
        handles = _curve_legend(colours, dashes, any(each["n"] is None for each in histories))
        columns = legend_columns([str(each.get_label()) for each in handles], 7)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.6)
    return figure, points


def _curve_points(histories: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    if not histories:
        raise DataError("a figure of training curves was asked for without any model. Name some in the config.")
    parts = []
    for each in histories:
        part = pd.DataFrame(list(each["history"]))
        missing = [name for name in _CURVE_COLUMNS if name not in part.columns]
        if missing:
            raise DataError(f"training history of {each['label']} has no {', '.join(missing)}. Train the model again.")
        part = part[list(_CURVE_COLUMNS)].astype(dict.fromkeys(_CURVE_COLUMNS[1:], "float64"))
        part.insert(0, "model", str(each["label"]))
        part["is_best"] = part["epoch"] == each["best_epoch"]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _draw_curve(left: Axes, right: Axes, points: pd.DataFrame, colour: str, style: Any) -> None:
    epochs = points["epoch"].to_numpy()
    left.plot(epochs, points["train_loss"].to_numpy(), color=colour, ls=style)
    right.plot(epochs, 100 * points["train_measure"].to_numpy(), color=colour, ls=style, lw=0.6, alpha=0.7)
    right.plot(epochs, 100 * points["val_measure"].to_numpy(), color=colour, ls=style)
    best = points[points["is_best"]]
    right.plot(best["epoch"], 100 * best["val_measure"], "o", ms=4, color=colour, mec="white", mew=0.6, zorder=3)


def _curve_legend(colours: Mapping[tuple[str, int], str], dashes: Mapping[int, Any], pretrain: bool) -> list[Line2D]:
    several = len({dataset for dataset, _ in colours}) > 1
    handles = []
    for (dataset, seed), colour in colours.items():
        prefix = f"{DATASET_NAMES.get(dataset, dataset)}, " if several else ""
        handles.append(Line2D([], [], color=colour, lw=3, label=f"{prefix}seed {seed}"))
    if pretrain:
        handles.append(Line2D([], [], color="#333333", label="original model"))
    handles += [
        Line2D([], [], color="#333333", ls=style, label=f"retrained model, n = {n}") for n, style in dashes.items()
    ]
    handles.append(Line2D([], [], color="#333333", lw=0.6, label="training images"))
    handles.append(Line2D([], [], color="#333333", lw=1.6, label="validation images"))
    handles.append(Line2D([], [], color="#333333", marker="o", ms=4, ls="none", label="best epoch"))
    return handles
