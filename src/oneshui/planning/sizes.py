"""How many images and identities a job works on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oneshui.errors import ConfigError
from oneshui.methods.costs import Sizes
from oneshui.planning.jobs import Job
from oneshui.runs import Model


@dataclass(frozen=True)
class Size:
    """How many images and identities of a dataset take part."""

    images: float
    identities: float

    def __post_init__(self) -> None:
        if not (self.identities >= 1 and self.images >= self.identities):
            raise ConfigError(f"a dataset cannot have {self.images} images of {self.identities} identities")


def size_of(dataset: str, entry: Mapping[str, Any], published: Mapping[str, Any]) -> Size:
    """Return the expected size of a dataset: what is rendered or published, or its share of a subset of identities.

    Args:
        dataset: its name, for the message.
        entry: its entry under ``datasets``.
        published: contents of resources/datasets.yaml.

    Raises:
        ConfigError: nobody has counted it.
    """
    if "synthetic" in entry:
        faces = entry["synthetic"]
        identities = faces["n_identities"]
        images = identities * sum(faces["images_per_identity"]) / 2
    elif entry["layout"] in published:
        images, identities = (published[entry["layout"]]["expected"][key] for key in ("images", "identities"))
    else:
        raise ConfigError(
            f"datasets/{dataset}: nobody has counted a dataset in the layout {entry['layout']}. Index yours first: "
            f"snakemake --cores 1 -- results/data/{dataset}/index.parquet"
        )
    chosen = entry["identities"] or identities
    return Size(images * chosen / identities, chosen)


def run_of(config: Mapping[str, Any], size: Size, job: Job) -> Sizes:
    """Return the sets that a job about a dataset of ``size`` works on."""
    split, n = config["datasets"][job.dataset]["split"], job.n or 0
    each, share = size.images / size.identities, (split["train"], split["val"])
    train, val = share[0] * size.images - split["n_ranked"], share[1] * size.images
    forget, asked = n * (each - 1), split["n_ranked"] * (each - 1)
    retrained = Model.of(job.row).trained in ("retrain", "ceiling")
    without = Model.of(job.row).fold
    trained = train - forget if retrained else train * (1 - 1 / without[1]) if without else train
    population = train - asked + val
    reference = min(config["attack"]["max_reference"], population)
    return Sizes(
        images=size.images, trained=trained,
        people=round(share[0] * size.identities) - n * retrained, each=each, val=val,
        test=(1 - sum(share)) * size.images, n=n, forget=forget, retain=train - forget, asked=asked,
        reference=reference, fit=reference * (train - asked) / population,
    )  # fmt: skip
