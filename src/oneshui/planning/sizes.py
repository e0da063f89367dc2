"""How many images and identities a job works on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oneshui.errors import ConfigError
from oneshui.planning.jobs import Job


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


@dataclass(frozen=True)
class Run:
    """Expected numbers of images in the sets that a job works on; every identity has the mean number of images.

    Attributes:
        images: of the dataset.
        trained: of the set that the job's model was trained on: D_tr, or D_r after retraining.
        people: identities among them, whole ones.
        each: images of an identity.
        val, test: of these sets.
        n: identities (and photos) of the request; 0 where the job serves every n.
        forget, retain: D_f and D_r.
        asked: training images of all identities that can ask, which every model is scored on.
        reference: images that stand for the population in an attack.
        fit: training images among these.
    """

    images: float
    trained: float
    people: int
    each: float
    val: float
    test: float
    n: int
    forget: float
    retain: float
    asked: float
    reference: float
    fit: float


def run_of(config: Mapping[str, Any], size: Size, job: Job) -> Run:
    """Return the sets that a job about a dataset of ``size`` works on."""
    split, n = config["datasets"][job.dataset]["split"], job.n or 0
    each, share = size.images / size.identities, (split["train"], split["val"])
    train, val = share[0] * size.images - split["n_ranked"], share[1] * size.images
    forget, asked = n * (each - 1), split["n_ranked"] * (each - 1)
    retrained = job.row.partition("/")[0] in ("retrain", "ceiling")
    population = train - asked + val
    reference = min(config["attack"]["max_reference"], population)
    return Run(
        images=size.images, trained=train - forget if retrained else train,
        people=round(share[0] * size.identities) - n * retrained, each=each, val=val,
        test=(1 - sum(share)) * size.images, n=n, forget=forget, retain=train - forget, asked=asked,
        reference=reference, fit=reference * (train - asked) / population,
    )  # fmt: skip
