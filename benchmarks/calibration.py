"""One person's edit at several scales, beside the fold model that never saw them: is its calibration right?

    python -m benchmarks.calibration config/mufac_edits.yaml mufac_edits --seeds 0

reads models, fold models and the artefact of a method of kind identity_edits (``solve: sum``); no retrained model,
forget set or test set, so it may be used on seeds on which things are chosen. People with six or more images, at
random; each asks alone. Columns, means over people, on their own training images: accuracy or mAP; mean probability of
the labels; accuracy minus the fold model's with the 95% interval by Student's t over people, who are taken as
independent.
"""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from benchmarks.finished_run import CPU, FinishedRun, arguments, finished_runs, mean_of_people
from torch import nn

from oneshui.methods import folds_of, make_method
from oneshui.metrics.measure import measure
from oneshui.runs import Model
from oneshui.scoring import score_images
from oneshui.sets import ImageSet, Support
from oneshui.stages.folds import open_folds

_FEWEST_IMAGES = 6


def answers_on(model: nn.Module, own: ImageSet) -> dict[str, float]:
    """Return how often a model is right on a person's images, and how sure it is of their labels."""
    scores = score_images(model, own)
    right = measure(own.task.kind, np.stack(scores["logits"].to_list()), own.labels.numpy())
    return {"right": right, "sure": float(scores["p_true"].mean())}


def scaled(model: nn.Module, edited: nn.Module, scale: float) -> nn.Module:
    """Return the model moved by ``scale`` times the edit."""
    result = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, old, new in zip(result.parameters(), model.parameters(), edited.parameters(), strict=True):
            parameter.copy_(old + scale * (new - old))
    return result


def rows_of(seed: FinishedRun, name: str, scales: list[float], most: int) -> list[dict[str, object]]:
    """Return the rows of the people of a seed."""
    spec, artefact = seed.kept(name)
    method, train, run = make_method(spec), seed.images.training_set(None), seed.run
    paths = [Path(run.weights(Model.of_fold(fold, folds_of(spec)))) for fold in range(folds_of(spec))]
    known, counts = train.identities.unique(return_counts=True)
    people = np.random.default_rng(run.seed).permutation(known[counts >= _FEWEST_IMAGES].numpy())[:most]
    rows: list[dict[str, object]] = []
    for fold in open_folds(paths, seed.images, run, CPU):
        never_saw = fold.load()
        for identity in np.intersect1d(people, fold.identities.numpy()).tolist():
            own = train.subset(train.identities == identity)
            asks = Support(own.images(torch.arange(1)), own.labels[:1], torch.tensor([identity]), own.task)
            edited = method.unlearn(seed.model, asks, artefact, seed=0).model
            models = {"original": seed.model, "fold model": never_saw}
            models |= {f"edit, {scale:g} times": scaled(seed.model, edited, scale) for scale in scales}
            rows += [
                {"model": model, "seed": run.seed, "identity": identity, **answers_on(each, own)}
                for model, each in models.items()
            ]
    return rows


def report(rows: pd.DataFrame) -> str:
    """Return the table as Markdown, percent."""
    right = rows.pivot(index=["seed", "identity"], columns="model", values="right")
    lines = [f"{len(right)} people of {rows['seed'].nunique()} seeds", "",
             "| model | right | sure | right minus the fold model |", "|---|---:|---:|---:|"]  # fmt: skip
    for name, own in rows.groupby("model", sort=False):
        change = mean_of_people(right[name] - right["fold model"])
        lines.append(f"| {name} | {100 * own['right'].mean():.1f} | {100 * own['sure'].mean():.1f} | {change} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = arguments("One person's edit at several scales, beside the fold model that never saw them.")
    parser.add_argument("--method", default="edits")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.25, 1.5, 2.0])
    parser.add_argument("--people", type=int, default=80, help="of each seed, at most")
    given = parser.parse_args()
    found = [
        row for seed in finished_runs(given, None) for row in rows_of(seed, given.method, given.scales, given.people)
    ]
    print(report(pd.DataFrame(found)))


if __name__ == "__main__":
    main()
