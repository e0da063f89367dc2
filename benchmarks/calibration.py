"""Edits beside models that never saw the people who ask: are they as often right, and as sure?

    python -m benchmarks.calibration config/mufac_edits.yaml mufac_edits --seeds 0

reads models, fold models and the artefacts of methods of kind identity_edits (``solve: sum``); no retrained model and
no test set. People with six or more images, at random, ask in groups. Those who can ask in the tables of a seed are
among them, so use it on seeds for development, which no table has. They are judged on their own training images, each
person beside the fold model that never saw them. ``--judges`` says how many fold models the judges are: another number
than the edits were made with gives judges that they were not fitted to, and the fold models of the edits get a row.
Columns, means over groups: accuracy or mAP; mean probability of the labels; accuracy minus the judge's with the 95%
interval by Student's t over groups, taken as independent; KL divergence from the judge's answers in nats.
"""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from benchmarks.finished_run import CPU, FinishedRun, arguments, finished_runs, mean_of_people
from torch import nn

from oneshui.methods import folds_of, make_method
from oneshui.metrics.divergence import mean_kl
from oneshui.metrics.measure import measure
from oneshui.runs import Model
from oneshui.scoring import logits_in, score_images
from oneshui.sets import ImageSet, Support
from oneshui.stages.folds import open_folds, scores_of_strangers

_FEWEST_IMAGES = 6


def scores_of_judges(seed: FinishedRun, folds: int, images: ImageSet) -> pd.DataFrame:
    """Return the scores of images, every person's from the one of ``folds`` fold models that never saw them."""
    paths = [Path(seed.run.weights(Model.of_fold(fold, folds))) for fold in range(folds)]
    (scores,) = scores_of_strangers(open_folds(paths, seed.images, seed.run, CPU), [images])
    return scores


def scaled(model: nn.Module, edited: nn.Module, scale: float) -> nn.Module:
    """Return the model moved by ``scale`` times the edit."""
    result = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, old, new in zip(result.parameters(), model.parameters(), edited.parameters(), strict=True):
            parameter.copy_(old + scale * (new - old))
    return result


def judged(images: ImageSet, scores: pd.DataFrame, judge: pd.DataFrame) -> dict[str, float]:
    """Return how often answers are right, how sure of the labels, and how far from the judge's."""
    kind, labels = images.task.kind, images.labels.numpy()
    return {
        "right": measure(kind, logits_in(scores), labels),
        "sure": float(scores["p_true"].mean()),
        "judge": measure(kind, logits_in(judge), labels),
        "kl": mean_kl(logits_in(judge), logits_in(scores), task=kind),
    }


def rows_of(
    seed: FinishedRun, names: list[str], scales: list[float], judges: int | None, together: int, most: int
) -> list[dict[str, object]]:
    """Return a row of each group of people and model of a seed."""
    train = seed.images.training_set(None)
    known, counts = train.identities.unique(return_counts=True)
    people = np.random.default_rng(seed.run.seed).permutation(known[counts >= _FEWEST_IMAGES].numpy())[:most]
    groups = people[: len(people) // together * together].reshape(-1, together)
    theirs = train.subset(torch.isin(train.identities, torch.from_numpy(groups.flatten())))
    kept = {name: seed.kept(name) for name in names}
    folds = {folds_of(spec) for spec, _ in kept.values()}
    judges = judges or max(folds)
    strangers = {number: scores_of_judges(seed, number, theirs) for number in dict.fromkeys([judges, *sorted(folds)])}
    rows: list[dict[str, object]] = []
    for number, group in enumerate(groups):
        mine = torch.isin(theirs.identities, torch.from_numpy(group))
        own, here = theirs.subset(mine), mine.numpy()
        photos = Support(
            own.images(torch.arange(1)).repeat(together, 1, 1, 1), own.labels[:1].repeat(together),
            torch.from_numpy(group), own.task,
        )  # fmt: skip
        found = {"original": score_images(seed.model, own)}
        found |= {f"{number} fold models": scores[here] for number, scores in strangers.items()}
        for name, (spec, artefact) in kept.items():
            edited = make_method(spec).unlearn(seed.model, photos, artefact, seed=0).model
            for scale in scales:
                shown = name if scale == 1 else f"{name}, {scale:g} times"
                found[shown] = score_images(scaled(seed.model, edited, scale), own)
        who = {"seed": seed.run.seed, "group": number}
        rows += [
            {"model": model, **who, **judged(own, scores, strangers[judges][here])} for model, scores in found.items()
        ]
    return rows


def report(rows: pd.DataFrame, together: int) -> str:
    """Return the table as Markdown, percent."""
    groups = len(rows[["seed", "group"]].drop_duplicates())
    asks = "each asking alone" if together == 1 else f"{together} at a time"
    lines = [f"{groups * together} people of {rows['seed'].nunique()} seeds, {asks}", "",
             "| model | right | sure | right minus the judge | KL from the judge |",
             "|---|---:|---:|---:|---:|"]  # fmt: skip
    for name, own in rows.groupby("model", sort=False):
        change = mean_of_people(own["right"] - own["judge"])
        lines.append(
            f"| {name} | {100 * own['right'].mean():.1f} | {100 * own['sure'].mean():.1f} | {change} "
            f"| {own['kl'].mean():.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = arguments("Edits beside models that never saw the people who ask.")
    parser.add_argument("--methods", nargs="+", default=["edits"])
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--judges", type=int, help="number of fold models; left out: those of the edits")
    parser.add_argument("--together", type=int, default=1, help="people of one request")
    parser.add_argument("--people", type=int, default=80, help="of each seed, at most")
    given = parser.parse_args()
    found = [
        row
        for seed in finished_runs(given, None)
        for row in rows_of(seed, given.methods, given.scales, given.judges, given.together, given.people)
    ]
    print(report(pd.DataFrame(found), given.together))


if __name__ == "__main__":
    main()
