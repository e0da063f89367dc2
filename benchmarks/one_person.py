"""One person asks: what is noise of their few photos, and what is the method?

    python -m benchmarks.one_person config/mufac_edits.yaml mufac_edits --methods edits fold_model

reads a finished run of that configuration. The first N people of each seed ask one by one. Each is compared on their
own training images with the retrained model of all N, which never saw them either. The second retrained model of the
same N people shows what noise does to so few photos: it differs from the first by chance alone.

Columns, means over people: F, accuracy or mAP on the person's images; F minus that of the retrained model with the 95%
interval by Student's t over people, who are taken as independent, although those of one seed share its models: what the
method does wrong; |F minus ...|: that and the noise; ToW for a request of
one (R and T on the retain and test images of the request of N); KL to the retrained model on the person's images.

Below it, the wrong people: the N who can ask after them ask together. F, on the images of the first N, should stay.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from benchmarks.finished_run import FinishedRun, arguments, finished_runs, mean_of_people
from torch import nn

from oneshui.methods import make_method
from oneshui.metrics.divergence import mean_kl
from oneshui.metrics.measure import measure
from oneshui.metrics.roles import metric_rows
from oneshui.metrics.tow import tug_of_war
from oneshui.runs import RETRAINED, SECOND_RETRAINED
from oneshui.scoring import logits_in, score_images
from oneshui.sets import ImageSet


def compared(
    images: dict[str, ImageSet], answers: dict[str, np.ndarray], retrained: dict[str, np.ndarray]
) -> dict[str, float]:
    """Return what is measured of a model on one person's images, and retain and test images.

    Args:
        images: by split.
        answers: of the model, logits by split.
        retrained: of the retrained model.
    """
    kind = images["forget"].task.kind
    own, theirs = (
        {split: measure(kind, logits[split], each.labels.numpy()) for split, each in images.items()}
        for logits in (answers, retrained)
    )
    return {
        "photos": len(images["forget"]), "forget": own["forget"], "difference": own["forget"] - theirs["forget"],
        "tow": tug_of_war(own, theirs), "kl": mean_kl(retrained["forget"], answers["forget"], task=kind),
    }  # fmt: skip


def logits_of(model: nn.Module, images: dict[str, ImageSet]) -> dict[str, np.ndarray]:
    """Return a model's logits by split."""
    return {split: logits_in(score_images(model, each)) for split, each in images.items()}


def rows_of(seed: FinishedRun, methods: list[str]) -> list[dict[str, object]]:
    """Return the rows of all people of a seed."""
    assert seed.run.n is not None
    ids = metric_rows(seed.images.splits, seed.run.n)
    shared = {split: seed.images.take(ids[split]) for split in ("retain", "test")}
    trained = {
        "original": seed.model, "retrained": seed.trained(RETRAINED), "second retrained": seed.trained(SECOND_RETRAINED)
    }  # fmt: skip
    of_all = {name: logits_of(model, shared) for name, model in trained.items()}
    kept = {name: seed.kept(name) for name in methods}
    train, rows = seed.images.training_set(None), []
    for identity in seed.ranked[: seed.run.n]:
        own = {"forget": train.subset(train.identities == identity)}
        images = {**shared, **own}
        answers = {name: {**of_all[name], **logits_of(model, own)} for name, model in trained.items()}
        photo = seed.request([identity])
        for name, (spec, artefact) in kept.items():
            answers[name] = logits_of(make_method(spec).unlearn(seed.model, photo, artefact, seed=0).model, images)
        who = {"seed": seed.run.seed, "identity": identity}
        rows += [
            {"model": name, **who, **compared(images, each, answers["retrained"])} for name, each in answers.items()
        ]
    return rows


def after_others(seed: FinishedRun, methods: list[str]) -> list[dict[str, object]]:
    """Return F of the first N people before and after a request of the next N; nothing where there are fewer."""
    n = seed.run.n
    assert n is not None
    others = seed.ranked[n : 2 * n]
    if len(others) < n:
        return []
    images = seed.images.take(metric_rows(seed.images.splits, n)["forget"])

    def forget(model: nn.Module) -> float:
        logits = logits_of(model, {"forget": images})["forget"]
        return measure(images.task.kind, logits, images.labels.numpy())

    before, rows = forget(seed.model), []
    for name in methods:
        spec, artefact = seed.kept(name)
        model = make_method(spec).unlearn(seed.model, seed.request(others), artefact, seed=0).model
        rows.append({"model": name, "seed": seed.run.seed, "before": before, "after": forget(model)})
    return rows


def report_others(rows: pd.DataFrame) -> str:
    """Return the table of the wrong people as Markdown, percent; means over seeds."""
    lines = ["| after others asked | F before | F after | largest change of a seed |", "|---|---|---|---|"]
    for name, own in rows.groupby("model", sort=False):
        changes = own["after"] - own["before"]
        most = changes[changes.abs().idxmax()]
        lines.append(
            f"| {name} | {100 * own['before'].mean():.1f} | {100 * own['after'].mean():.1f} | {100 * most:+.1f} |"
        )
    return "\n".join(lines)


def report(rows: pd.DataFrame) -> str:
    """Return the table as Markdown; percent but KL, which is in nats."""
    people = rows.groupby(["seed", "identity"]).ngroups
    lines = [
        f"{people} people of {rows['seed'].nunique()} seeds, {rows['photos'].mean():.1f} photos each on average.", "",
        "| model | F | F minus retrained | mean of its size | ToW | KL |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, own in rows.groupby("model", sort=False):
        cells = [
            f"{100 * own['forget'].mean():.1f}",
            mean_of_people(own["difference"]),
            f"{100 * own['difference'].abs().mean():.1f}", f"{100 * own['tow'].mean():.1f}", f"{own['kl'].mean():.2f}",
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; ``--csv`` writes a row for each person and model, too."""
    parser = arguments("One person asks: noise of few photos, and the method.")
    parser.add_argument("--people", type=int, default=10, help="N: there must be retrained models of so many")
    parser.add_argument("--methods", nargs="+", default=["edits", "fold_model"])
    parser.add_argument("--csv", type=lambda text: Path(text).absolute())  # the runs are read from their own folder
    given = parser.parse_args()
    found: list[dict[str, object]] = []
    others: list[dict[str, object]] = []
    for seed in finished_runs(given, given.people):
        found += rows_of(seed, given.methods)
        others += after_others(seed, given.methods)
    rows = pd.DataFrame(found)
    if given.csv:
        rows.to_csv(given.csv, index=False)
    print(report(rows))
    if others:
        print(f"\n{report_others(pd.DataFrame(others))}")


if __name__ == "__main__":
    main()
