"""What scores and attacks would lose if models were scored in bfloat16, on the models of a finished run.

    python -m benchmarks.scoring_precision config/mufac_edits.yaml mufac_edits

For each seed the original and the second retrained model are attacked by RMIA with the retrained model as reference, as
the configuration says but on images as they are, without random crops, and with offline_a 0.3 where that is chosen on
another seed; all three in float32, then all three with their networks in bfloat16. Columns, means over models and seeds
unless they say otherwise: change of an image's loss in nats, mean and largest; change of its RMIA score, which lies in
[0, 1], mean and largest; change of the attack's AUC and of the accuracy or mAP on the forget images in points, largest
of all models. The last row is what the same images in batches of another size change in float32: its own rounding.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from benchmarks.finished_run import FinishedRun, arguments, finished_runs
from torch import Tensor, nn

from oneshui import scoring
from oneshui.config import AttackSpec
from oneshui.metrics.measure import measure
from oneshui.metrics.membership import likelihood_ratios, rmia_scores
from oneshui.metrics.queries import query_rows
from oneshui.metrics.roc import auc
from oneshui.metrics.roles import metric_rows
from oneshui.runs import RETRAINED, SECOND_RETRAINED
from oneshui.sets import ImageSet

Score = Callable[[nn.Module, ImageSet], pd.DataFrame]


class Lowered(nn.Module):
    """A network that computes in bfloat16 where torch holds that safe; what makes its input stays float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            logits: Tensor = self.model(images)
        return logits.float()


def in_other_batches(model: nn.Module, images: ImageSet) -> pd.DataFrame:
    """Return the scores of images in batches of 100, not of 256."""
    parts = torch.arange(len(images)).split(100)
    return pd.concat([scoring.score_images(model, images.subset(rows)) for rows in parts], ignore_index=True)


WAYS: dict[str, Score] = {
    "float32": scoring.score_images,
    "bf16": lambda model, images: scoring.score_images(Lowered(model), images),
    "float32, other batches": in_other_batches,
}


def rows_of(seed: FinishedRun) -> list[dict[str, object]]:
    """Return what each way of scoring changes, for each attacked model of a seed."""
    assert seed.run.n is not None
    attack = AttackSpec.from_dict({name: value for name, value in seed.config["attack"].items() if name != "refit_c"})
    splits = seed.images.splits
    asked = query_rows(splits, dataset=seed.run.dataset, seed=seed.run.seed, max_reference=attack.max_reference)
    members = metric_rows(splits, seed.run.n)["forget"]
    tested = np.concatenate([members, asked["test"]])
    images = seed.images.take(np.concatenate([tested, asked["reference"]]))
    labels = seed.images.take(members).labels.numpy()
    identities = images.identities.numpy()[: len(tested)]
    offline_a = 0.3 if isinstance(attack.offline_a, str) else float(attack.offline_a)
    reference, *attacked = seed.trained(RETRAINED), seed.model, seed.trained(SECOND_RETRAINED)

    def measured(model: pd.DataFrame, compared: pd.DataFrame) -> dict[str, np.ndarray | float]:
        loss = model["loss"].to_numpy(dtype=np.float64)
        ratio = likelihood_ratios(loss[None], compared["loss"].to_numpy(dtype=np.float64)[None, None], a=offline_a)
        rmia = rmia_scores(ratio[:, : len(tested)], ratio[:, len(tested) :], gamma=attack.gamma, combine=attack.combine)
        logits = scoring.logits_in(model)[: len(members)]
        return {
            "loss": loss, "rmia": rmia, "auc": auc(rmia, np.isin(tested, members), identities).value,
            "forget": measure(images.task.kind, logits, labels),
        }  # fmt: skip

    rows = []
    references = {way: score(reference, images) for way, score in WAYS.items()}
    for number, model in enumerate(attacked):
        first, *others = (measured(score(model, images), references[way]) for way, score in WAYS.items())
        for way, other in zip(list(WAYS)[1:], others, strict=True):
            change = {name: np.abs(other[name] - first[name]) for name in first}
            rows.append(
                {"way": way, "seed": seed.run.seed, "model": number}
                | {
                    f"{name}_{kind.__name__}": kind(value)
                    for name, value in change.items()
                    for kind in (np.mean, np.max)
                }
            )
    return rows


def report(rows: pd.DataFrame) -> str:
    """Return the table as Markdown."""
    lines = [
        f"{len(rows) // rows['way'].nunique()} models of {rows['seed'].nunique()} seeds", "",
        "| scored in | loss in nats, mean | largest | RMIA score, mean | largest | AUC, points, largest "
        "| forget, points, largest |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for way, own in rows.groupby("way", sort=False):
        lines.append(
            f"| {way} | {own['loss_mean'].mean():.1e} | {own['loss_max'].max():.1e} | {own['rmia_mean'].mean():.1e} | "
            f"{own['rmia_max'].max():.1e} | {100 * own['auc_max'].max():.2f} | {100 * own['forget_max'].max():.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = arguments("What scores and attacks would lose in bfloat16.")
    parser.add_argument("--people", type=int, default=10, help="N: there must be retrained models of so many")
    given = parser.parse_args()
    print(report(pd.DataFrame([row for seed in finished_runs(given, given.people) for row in rows_of(seed)])))


if __name__ == "__main__":
    main()
