"""Result tables: one row per method, mean and spread over seeds, beside the published numbers.

``make_table`` computes, the ``to_`` functions print. Numbers are percentages here; inside metrics files they are
fractions. A number that some seed lacks is missing (NaN): a mean never silently stands for fewer seeds than its
neighbours.
"""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from oneshui.errors import ConfigError, DataError
from oneshui.report.style import MEASURE_NAMES, block_name, method_name

logger = logging.getLogger(__name__)

#: columns of numbers that a mean and a standard deviation stand for
QUANTITIES = ("retain", "forget", "test", "tow")
#: what a method can have done wrong, with the words for it
FLAGS = {
    "saturated": "saturated (its step changed next to nothing)",
    "blown_up": "blew up (its step destroyed the model)",
}
#: metric -> column: what a method costs, mean over seeds
COSTS = {
    "precompute_seconds": "precompute_s",
    "precompute_peak_mb": "precompute_peak_mb",
    "seconds": "unlearn_s",
    "peak_mb": "unlearn_peak_mb",
}
COLUMNS = (
    "dataset",
    "n",
    "method",
    "measure",
    "access_to_data",
    "n_seeds",
    *(f"{name}_{part}" for name in QUANTITIES for part in ("mean", "std")),
    "tow_minus_pretrain_mean",
    "tow_minus_pretrain_std",
    "tow_minus_pretrain_ci95",
    *FLAGS,
    *COSTS.values(),
    *(f"published_{name}{part}" for name in QUANTITIES for part in ("", "_std")),
    "tow_diff_in_published_std",
)
_PUBLISHED_COLUMNS = ("dataset", "n_identities", "method", "variant", "metric", "mean", "std")
_PLUS_MINUS = "\u00b1"
_NAN = math.nan


def make_table(
    metrics: pd.DataFrame,
    spec: Mapping[str, Any],
    published: pd.DataFrame | None,
    *,
    seeds: Sequence[int],
    data_methods: Collection[str] = (),
) -> pd.DataFrame:
    """Return a table with one row per block and method: pretrain, retrain, then the methods of ``spec`` in order.

    Args:
        metrics: METRICS rows of any number of models, in any order; rows that the table does not ask for are ignored.
        spec: ``{title, blocks: [{dataset, n}, ...], methods: [...], decimals}``.
        published: published results, or None; a result is found by dataset, n, method and empty variant.
        seeds: the seeds that every row must have.
        data_methods: methods that need the training data at unlearning time.

    Returns:
        The columns ``COLUMNS``, numbers in percent. ``n_seeds`` counts the seeds for which all numbers of the row
        were found; std has ddof 1 and is NaN for one seed. ``tow_minus_pretrain`` is paired by seed, ``ci95`` is the
        half-width of its 95% interval by Student's t. ``saturated`` and ``blown_up`` count seeds. Costs are means over
        seeds, s and MB, as measured on the machine that ran the jobs.

    Raises:
        ConfigError: ``spec`` lacks a part, or there are no seeds.
        DataError: the metrics contradict each other, or ``published`` has other columns or repeats a result.
    """
    _check_spec(spec, seeds)
    lookup = _published_lookup(published)
    methods = list(dict.fromkeys(["pretrain", "retrain", *spec["methods"]]))
    rows = []
    for block in spec["blocks"]:
        dataset, n = str(block["dataset"]), int(block["n"])
        chosen = metrics[(metrics["dataset"] == dataset) & (metrics["n"] == n)]
        measure = _measure_of(chosen, dataset, n)
        values = {method: _values_by_seed(chosen, method, measure, seeds) for method in methods}
        for method in methods:
            row = {"dataset": dataset, "n": n, "method": method, "measure": measure}
            row |= {"access_to_data": method in data_methods}
            row |= _summary(values[method], values["pretrain"]["tow"], f"{method} on {dataset}, n = {n}", method)
            row |= _comparison(lookup, (dataset, n, method), measure, row["tow_mean"])
            rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("n_seeds", *FLAGS), "Int64"))


def _check_spec(spec: Mapping[str, Any], seeds: Sequence[int]) -> None:
    title, blocks = spec.get("title", "?"), spec.get("blocks", [])
    missing = [key for key in ("title", "blocks", "methods") if key not in spec]
    missing += [f"blocks[{i}].{key}" for i, block in enumerate(blocks) for key in ("dataset", "n") if key not in block]
    if missing:
        raise ConfigError(f"table {title!r}: missing {', '.join(missing)}. Add it to the config.")
    keys = [(block["dataset"], block["n"]) for block in blocks]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"table {title!r}: blocks are {keys}, allowed: each dataset and n once")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"table {title!r}: seeds are {list(seeds)}, needed: one or more, each once")


def _measure_of(metrics: pd.DataFrame, dataset: str, n: int) -> str | None:
    found = [name for name in MEASURE_NAMES if (metrics["metric"] == name).any()]
    if len(found) > 1:
        raise DataError(
            f"metrics of {dataset}, n = {n} have both {' and '.join(found)}, allowed: one of them. Files of different "
            "versions of the dataset are mixed; delete its metrics to make them again."
        )
    return found[0] if found else None


def _values_by_seed(metrics: pd.DataFrame, method: str, measure: str | None, seeds: Sequence[int]) -> pd.DataFrame:
    """Return one row per seed with the quantities in percent and the flags, NaN where there is no number."""
    # origin "retrain" also has unlearned models (an attack's reference models), which belong to no table
    origin = "retrain" if method == "retrain" else "pretrain"
    own = metrics[(metrics["method"] == method) & (metrics["origin"] == origin)]
    repeated = own[own.duplicated(["seed", "split", "metric"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise DataError(
            f"metrics have several values of {first['metric']} ({first['split']}) for {method}, {first['dataset']}, "
            f"n = {first['n']}, seed {first['seed']}. Give each metrics file once."
        )
    found = dict(zip(zip(own["split"], own["metric"], own["seed"], strict=True), own["value"], strict=True))
    keys = {name: (name, measure) for name in ("retain", "forget", "test")} | {"tow": ("all", "tow")}
    keys |= {name: ("all", name) for name in (*FLAGS, *COSTS)}
    columns = {name: [found.get((*key, seed), _NAN) for seed in seeds] for name, key in keys.items()}
    frame = pd.DataFrame(columns, index=pd.Index(seeds, name="seed"), dtype="float64")
    frame[list(QUANTITIES)] *= 100.0
    return frame


def _summary(values: pd.DataFrame, pretrain_tow: "pd.Series[float]", where: str, method: str) -> dict[str, Any]:
    # the retrained model is what the tug of war compares with: it has none itself
    needed = [name for name in QUANTITIES if method != "retrain" or name != "tow"]
    complete = values[needed].notna().all(axis=1)
    if not complete.all():
        logger.warning("%s: no complete results for seeds %s", where, list(values.index[~complete]))
    row: dict[str, Any] = {"n_seeds": int(complete.sum())}
    for name in QUANTITIES:
        row[f"{name}_mean"], row[f"{name}_std"] = _mean_std(values[name])
    mean, std = _mean_std(values["tow"] - pretrain_tow)
    row |= {"tow_minus_pretrain_mean": mean, "tow_minus_pretrain_std": std}
    row["tow_minus_pretrain_ci95"] = _half_width(std, len(values))
    for flag in FLAGS:
        row[flag] = int((values[flag] > 0).sum()) if values[flag].notna().any() else pd.NA
    row |= {column: float(values[metric].mean(skipna=False)) for metric, column in COSTS.items()}
    return row


def _mean_std(values: "pd.Series[float]") -> tuple[float, float]:
    numbers = values.to_numpy(dtype=np.float64)
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else _NAN
    return float(np.mean(numbers)), std


def _half_width(std: float, count: int) -> float:
    """Return the half-width of the 95% interval of a mean by Student's t."""
    return float(stdtrit(count - 1, 0.975)) * std / math.sqrt(count) if count > 1 else _NAN


def _published_lookup(published: pd.DataFrame | None) -> dict[tuple[str, int, str, str], tuple[float, float]]:
    """Return (mean, std) by dataset, n, method and metric, of the published results without a variant."""
    if published is None:
        return {}
    missing = [name for name in _PUBLISHED_COLUMNS if name not in published.columns]
    if missing:
        raise DataError(f"published results lack the columns {missing}, needed: {', '.join(_PUBLISHED_COLUMNS)}")
    plain = published[published["variant"].isna() | (published["variant"] == "")]
    keys = ["dataset", "n_identities", "method", "metric"]
    repeated = plain[plain.duplicated(keys)]
    if len(repeated):
        raise DataError(f"published results have {tuple(repeated.iloc[0][keys])} several times, allowed: once")
    names = zip(plain["dataset"], plain["n_identities"], plain["method"], plain["metric"], strict=True)
    numbers = zip(plain["mean"], plain["std"], strict=True)
    return {
        (str(dataset), int(n), str(method), str(metric)): (float(mean), float(std))
        for (dataset, n, method, metric), (mean, std) in zip(names, numbers, strict=True)
    }


def _comparison(
    lookup: dict[tuple[str, int, str, str], tuple[float, float]],
    key: tuple[str, int, str],
    measure: str | None,
    tow: float,
) -> dict[str, float]:
    row = {}
    # a tug of war between accuracies is not held against a published one between mAPs
    same_measure = (*key, f"{measure}_retain") in lookup
    for name in QUANTITIES:
        metric = name if name == "tow" else f"{measure}_{name}"
        found = lookup.get((*key, metric), (_NAN, _NAN)) if same_measure else (_NAN, _NAN)
        row[f"published_{name}"], row[f"published_{name}_std"] = found
    std = row["published_tow_std"]
    row["tow_diff_in_published_std"] = (tow - row["published_tow"]) / std if std > 0 else _NAN
    return row


def to_csv(table: pd.DataFrame) -> str:
    """Return the table as CSV, numbers in percent with six decimals at most."""
    return table.round(6).to_csv(index=False, lineterminator="\n")


def to_markdown(table: pd.DataFrame, spec: Mapping[str, Any], *, seeds: Sequence[int]) -> str:
    """Return the table as Markdown: per block the numbers, how to read them, and what went wrong.

    Args:
        table: what ``make_table`` returned.
        spec: the same specification.
        seeds: the same seeds.
    """
    decimals = int(spec.get("decimals", 1))
    parts = [f"# {spec['title']}"]
    for (dataset, n), block in _blocks(table):
        measure = block["measure"].dropna()
        unit = f"{MEASURE_NAMES[measure.iloc[0]]}, %" if len(measure) else "%"
        parts.append(f"## {block_name(dataset, n)} ({unit})")
        parts.append(_markdown_table(block, decimals))
        parts.append(_note(block, len(seeds)))
        warnings = _warnings(block, len(seeds))
        if warnings:
            parts.append("\n".join(f"- {line}" for line in warnings))
    return "\n\n".join(parts) + "\n"


def _blocks(table: pd.DataFrame) -> list[tuple[tuple[str, int], pd.DataFrame]]:
    """Return the parts of the table that share dataset and n, in order."""
    keys = table[["dataset", "n"]].drop_duplicates()
    return [
        ((str(dataset), int(n)), table[(table["dataset"] == dataset) & (table["n"] == n)])
        for dataset, n in zip(keys["dataset"], keys["n"], strict=True)
    ]


def _markdown_table(block: pd.DataFrame, decimals: int) -> str:
    with_published = block["published_tow"].notna().any()
    header = ["Method", "Retain", "Forget", "Test", "ToW", "vs doing nothing", "Prepare", "Unlearn"]
    header += ["published ToW"] if with_published else []
    ranks = _ranks(block, decimals)
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for row in block.to_dict("records"):
        method = str(row["method"])
        cells = [_cell(row, name, decimals, _plain) for name in QUANTITIES]
        if ranks.get(method) == 1:
            cells[-1] = f"**{cells[-1]}**"
        name = method_name(method) + (" (needs the data)" if row["access_to_data"] else "")
        costs = [_cost(row, "precompute"), _cost(row, "unlearn")]
        line = [name.replace("|", "\\|"), *cells, _difference(row, decimals), *costs]
        if with_published:
            line.append(_published_cell(row, decimals))
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Mapping[Any, Any], name: str, decimals: int, render: Callable[[float, float, int], str]) -> str:
    if row["method"] == "retrain" and name == "tow":
        return "-"
    mean = float(row[f"{name}_mean"])
    return "missing" if math.isnan(mean) else render(mean, float(row[f"{name}_std"]), decimals)


def _plain(mean: float, std: float, decimals: int) -> str:
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" {_PLUS_MINUS} {std:.{decimals}f}")


def _difference(row: Mapping[Any, Any], decimals: int) -> str:
    mean, width = float(row["tow_minus_pretrain_mean"]), float(row["tow_minus_pretrain_ci95"])
    if row["method"] in ("pretrain", "retrain"):
        return "-"
    if math.isnan(mean):
        return "missing"
    interval = "" if math.isnan(width) else f" [{mean - width:+z.{decimals}f}, {mean + width:+z.{decimals}f}]"
    return f"{mean:+z.{decimals}f}{interval}"  # z: no negative zero


def _cost(row: Mapping[Any, Any], step: str) -> str:
    seconds, mb = float(row[f"{step}_s"]), float(row[f"{step}_peak_mb"])
    return "-" if math.isnan(seconds) else f"{seconds:.3g} s, {mb:.0f} MB"


def _published_cell(row: Mapping[Any, Any], decimals: int) -> str:
    mean = float(row["published_tow"])
    return "-" if math.isnan(mean) else _plain(mean, float(row["published_tow_std"]), decimals)


def _ranks(block: pd.DataFrame, decimals: int) -> dict[str, int]:
    """Return the rank by tug of war of the methods that could run without the data.

    Numbers that print alike share a rank: a table must not prefer one of two equal numbers.
    """
    rivals = block[~block["access_to_data"] & ~block["method"].isin(["pretrain", "retrain"])]
    printed = rivals["tow_mean"].dropna().map(lambda value: float(f"{value:.{decimals}f}"))
    ranks = printed.rank(method="dense", ascending=False).astype(int)
    return dict(zip(rivals.loc[ranks.index, "method"], ranks, strict=True))


def _note(block: pd.DataFrame, expected: int) -> str:
    spread = f", {_PLUS_MINUS} standard deviation over seeds" if expected > 1 else ""
    fewer = " (fewer in rows with missing numbers)" if (block["n_seeds"] < expected).any() else ""
    interval = " [95% interval], paired by seed" if expected > 1 else ""
    return (
        f"n_seeds = {expected}{fewer}{spread}. ToW (tug of war): closeness to the retrained model on retain, forget "
        f"and test images, 100 is best. vs doing nothing: ToW minus that of the pretrained model{interval}. Bold: "
        "the best ToW among methods that do not need the data. Prepare (before the data is deleted) and Unlearn: mean "
        "time and peak memory beyond the loaded model and data."
    )


def _warnings(block: pd.DataFrame, expected: int) -> list[str]:
    lines = []
    for row in block.to_dict("records"):
        name = method_name(str(row["method"]))
        for flag, words in FLAGS.items():
            if not pd.isna(row[flag]) and row[flag] > 0:
                lines.append(f"**Warning**: {name} {words} in {int(row[flag])} of {expected} seeds.")
        if row["n_seeds"] < expected:
            lines.append(f"**Missing**: {name} has complete results for {int(row['n_seeds'])} of {expected} seeds.")
    return lines


def to_latex(table: pd.DataFrame, spec: Mapping[str, Any]) -> str:
    """Return the table for LaTeX with booktabs; of the methods without access to data, the best by ToW is bold, the
    second best underlined.

    Args:
        table: what ``make_table`` returned.
        spec: the same specification.
    """
    decimals = int(spec.get("decimals", 1))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_escape(str(spec['title']))}}}",
        r"  \begin{tabular}{lcrrrrrr}",
        r"    \toprule",
        r"    Method & Needs data & Retain & Forget & Test & ToW & Prepare (s) & Unlearn (s) \\",
    ]
    for (dataset, n), block in _blocks(table):
        measure = block["measure"].dropna()
        unit = f" ({MEASURE_NAMES[measure.iloc[0]]})" if len(measure) else ""
        lines += [
            r"    \midrule",
            rf"    \multicolumn{{8}}{{c}}{{{_escape(block_name(dataset, n))}{unit}}} \\",
            r"    \midrule",
        ]
        lines += _latex_rows(block, decimals)
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]) + "\n"


def _latex_rows(block: pd.DataFrame, decimals: int) -> list[str]:
    ranks = _ranks(block, decimals)
    marks = {1: r"\mathbf", 2: r"\underline"}
    lines = []
    for row in block.to_dict("records"):
        method = str(row["method"])
        cells = [_cell(row, name, decimals, _math) for name in QUANTITIES]
        mark = marks.get(ranks.get(method, 0))
        if mark:
            cells[-1] = f"${mark}{{{cells[-1].strip('$')}}}$"
        access = "--" if method in ("pretrain", "retrain") else "yes" if row["access_to_data"] else "no"
        name = _escape(method_name(method))
        cells += ["-" if math.isnan(row[key]) else f"{row[key]:.3g}" for key in ("precompute_s", "unlearn_s")]
        lines.append("    " + " & ".join([name, access, *("--" if cell == "-" else cell for cell in cells)]) + r" \\")
    return lines


def _math(mean: float, std: float, decimals: int) -> str:
    return f"${mean:.{decimals}f}" + ("$" if math.isnan(std) else rf"{{\pm}}{std:.{decimals}f}$")


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {each: "\\" + each for each in "&%$#_{}"}
    return "".join(special.get(each, each) for each in text)
