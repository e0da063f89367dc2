# Configuration checks and the input functions that more than one rule file uses; the only rule file with `def`.
import json
import os
import re

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from oneshui.config import (
    PAIRED_SEED,
    AttackSpec,
    changed_keys,
    check_grid,
    check_methods,
    index_options,
    method_spec,
    raw_path,
)
from oneshui.data.layouts import annotation_files
from oneshui.files import read_header, spec_hash
from oneshui.methods import METHODS, artefact_spec, needs_of
from oneshui.paths import (
    identity_files,
    model_file,
    reference_of,
    splits_file,
    table_files,
    table_rows,
)
from oneshui.schemas import INDEX, read_meta, read_table

validate(config, "../schemas/config.schema.yaml")
check_grid(config)
check_methods(
    config,
    os.path.join(workflow.basedir, "workflow/schemas/methods"),
    METHODS.__contains__,
)

# GPUs that a GPU rule asks for, and CPU threads beside them. Without a GPU one thread a job fills the cores best,
# because several jobs run at once.
GPUS = 0 if config["device"] == "cpu" else 1
THREADS = 4 if GPUS else 1

SEEDS = config["seeds"]

# what scores, attacks and refit attacks depend on, and no more: a new gamma must not ask a model anew
ATTACK_QUERIES = AttackSpec.from_dict(config["attack"]).queries()
ATTACK = {key: value for key, value in config["attack"].items() if key != "refit_c"}
REFIT = {key: config["attack"][key] for key in ("max_reference", "refit_c")}

# everything that can change a result; for steps that look at the whole configuration
SETTINGS = spec_hash({key: config[key] for key in config if key != "data_root"})

# files that come with oneshui, wherever --directory puts the results
RESOURCES = os.path.join(workflow.basedir, "resources")


def one_of(names):
    """A wildcard constraint that matches the given names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


def that_need(*needs):
    """Names of the methods that need one of ``artefact``, ``nothing`` or ``data`` beside model and request."""
    return [name for name, e in config["methods"].items() if needs_of(e) in needs]


def raw_folder(wildcards):
    """The folder of raw images: the user's, or the one that render_faces fills."""
    return raw_path(config, wildcards.dataset)


def refuse_stale_index(wildcards):
    """Without raw data an existing index is used as it is; it must be the one that the configuration describes."""
    path = f"results/data/{wildcards.dataset}/index.parquet"
    if os.path.exists(path) and read_meta(path)["spec"] != spec_hash(
        index_spec(wildcards)
    ):
        raise WorkflowError(
            f"{path} was made with other options than datasets/{wildcards.dataset} has now, and the raw data in "
            f"{raw_folder(wildcards)} is not there to make it again. Restore the data, the options, or data_root."
        )


def raw_inputs(wildcards):
    """Files whose change means a new index; the folder itself where they are missing, for the reader to complain."""
    entry = config["datasets"][wildcards.dataset]
    if "synthetic" in entry:
        return [f"results/raw/{wildcards.dataset}/rendered.json"]
    folder = raw_folder(wildcards)
    files = annotation_files(entry["layout"], folder, entry["options"])
    if all(map(os.path.exists, files)):
        return files
    refuse_stale_index(wildcards)
    return [folder]


def index_spec(wildcards):
    """The part of a dataset's entry that its index depends on."""
    return index_options(config["datasets"][wildcards.dataset])


def counted_datasets(wildcards):
    """Images and identities of the datasets that are indexed as they are configured now."""
    counted = {}
    for dataset, entry in config["datasets"].items():
        path = f"results/data/{dataset}/index.parquet"
        if os.path.exists(path):
            index, meta = read_table(path, INDEX)
            if meta["spec"] == spec_hash(index_options(entry)):
                counted[dataset] = (len(index), index["identity"].nunique())
    return counted


def published_layout(wildcards):
    """The published dataset that a copy is compared with; none for synthetic faces."""
    entry = config["datasets"][wildcards.dataset]
    return "synthetic" if "synthetic" in entry else entry["layout"]


def training_spec(role):
    """What a trained model depends on. Refuses to go on where one exists that was trained with something else."""

    def of(wildcards):
        dataset = wildcards.dataset
        entry = config["datasets"][dataset]
        spec = {
            "dataset": {key: value for key, value in entry.items() if key != "folder"},
            "training": config["training"][dataset],
        }
        path = model_file(
            "models", dataset, wildcards.get("n", 0), wildcards.seed, role
        )
        if os.path.exists(path):
            old = read_header(path)["spec"]
            changes = changed_keys(old, json.loads(json.dumps(spec)))
            if changes:
                raise WorkflowError(
                    f"{path} was trained with another configuration, and trained models are protected: they are "
                    f"never deleted or replaced. Changed: {'; '.join(changes)}. Undo the change, give the dataset "
                    "another name in the config, or move the model away to train again."
                )
        return spec

    return of


def initial_weights(wildcards):
    """The safetensors file of initial weights, or nothing."""
    training = config["training"][wildcards.dataset]
    source = training["init_weights"]
    if source == "random":
        return []
    return (
        f"results/weights/{training['model']}.safetensors"
        if source == "timm"
        else source
    )


def kept(path):
    """Unlearned models are large and quick to make again: keep them only if the config says so."""
    return path if config["keep_unlearned"] else temp(path)


def spec_of_method(wildcards):
    """Hyper-parameters of a method for one dataset and request size."""
    return method_spec(
        config["methods"], wildcards.method, wildcards.dataset, int(wildcards.n)
    )


def row_of(wildcards):
    """The row of a table that a job is about (oneshui.paths)."""
    if wildcards.get("trained"):
        return wildcards.trained
    return f"{wildcards.get('origin', 'pretrain')}/{wildcards.method}"


def of_row(kind, wildcards, row=None, seed=None):
    """A file about the model of a row, by default the job's own."""
    w = wildcards
    return model_file(kind, w.dataset, w.n, seed or w.seed, row or row_of(w))


def model_of_origin(wildcards):
    """The trained model that a method starts from."""
    origin = "retrain" if wildcards.origin == "retrain" else "pretrain"
    return of_row("models", wildcards, origin)


def request_of(wildcards):
    """The photos that a method is given; those of other people in the wrong-photo control."""
    control = "_wrong_photos" if wildcards.origin == "wrong_photos" else ""
    return f"results/requests/{wildcards.dataset}/n{wildcards.n}/seed{wildcards.seed}{control}.parquet"


def scores_of_row(wildcards):
    """Scores of the model of a row."""
    return of_row("scores", wildcards)


def features_of_row(wildcards):
    """Features of the model of a row."""
    return of_row("features", wildcards)


def spec_of_artefact(wildcards):
    """The hyper-parameters that what a method keeps depends on."""
    return artefact_spec(spec_of_method(wildcards))


def artefact_of(wildcards):
    """What the method kept of the training data of the model it starts from, or nothing."""
    if wildcards.method not in that_need("artefact"):
        return []
    run = f"{wildcards.dataset}/n{wildcards.n}/seed{wildcards.seed}"
    origin = "retrain" if wildcards.origin == "retrain" else "pretrain"
    return f"results/artefacts/{run}/{origin}/{wildcards.method}.safetensors"


def paired_seed(wildcards):
    """The seed on which an attack chooses offline_a: the next one, or none."""
    if config["attack"]["offline_a"] != PAIRED_SEED:
        return None
    return SEEDS[(SEEDS.index(int(wildcards.seed)) + 1) % len(SEEDS)]


def attack_inputs(wildcards):
    """Scores of the attacked and the reference models with their splits, and the same of the paired seed."""
    row, own = row_of(wildcards), int(wildcards.seed)
    others = [
        s for s in SEEDS if s != own and config["attack"]["references"] == "seeds"
    ]
    files = {
        "target": of_row("scores", wildcards, row),
        "references": [
            of_row("scores", wildcards, reference_of(row), seed)
            for seed in (own, *others)
        ],
        "splits": [splits_file(wildcards.dataset, seed) for seed in (own, *others)],
    }
    paired = paired_seed(wildcards)
    if paired is not None:
        files |= {
            "paired_target": of_row("scores", wildcards, row, paired),
            "paired_reference": of_row("scores", wildcards, reference_of(row), paired),
            "paired_splits": splits_file(wildcards.dataset, paired),
        }
    return files


def spec_of_table(wildcards):
    """A table's entry, with how its methods are written."""
    table = config["tables"][wildcards.table]
    entries = config["methods"]
    labels = {
        name: entries[name]["label"]
        for name in table["methods"]
        if "label" in entries[name]
    }
    return {**table, "labels": labels}


def files_of_table(name):
    """Metrics, attacks and refit attacks of a table."""
    return table_files(config["tables"][name], SEEDS, that_need("data"))


def attacks_of_table(wildcards):
    """Attacks on all models of a table."""
    return files_of_table(wildcards.table)["attacks"]


def table_inputs(wildcards):
    """What a table is made from."""
    files = files_of_table(wildcards.table)
    summary = [f"results/attacks/{wildcards.table}.csv"] if files["attacks"] else []
    return {"metrics": files["metrics"] + files["refit"], "attacks": summary}


def rows_of_figure(wildcards):
    """Models of the table that a figure is about."""
    return table_rows(config["tables"][config["figures"][wildcards.figure]["table"]])


def blocks_of_figure(figure):
    """The blocks that a figure is drawn of: its own, or those of its table."""
    return figure.get("blocks") or config["tables"][figure["table"]]["blocks"]


def identities_of_figure(figure):
    """What is known of single identities in a figure's blocks."""
    table = config["tables"][figure["table"]]
    return identity_files(table, SEEDS, that_need("data"), blocks_of_figure(figure))


def figure_inputs(wildcards):
    """Files that a figure is drawn from."""
    figure = config["figures"][wildcards.figure]
    table = f"results/tables/{figure['table']}.csv"
    if figure["kind"] == "table_bars":
        return [table, *files_of_table(figure["table"])["metrics"]]
    if figure["kind"] == "roc":
        return files_of_table(figure["table"])["attacks"]
    if figure["kind"] in ("hardness", "harm"):
        return [table, *identities_of_figure(figure)]
    rows = [
        (b["dataset"], b["n"], seed) for b in blocks_of_figure(figure) for seed in SEEDS
    ]
    trained = [
        model_file("models", *run, row)
        for row in ("pretrain", "retrain")
        for run in rows
    ]
    return list(dict.fromkeys(trained))


def faces_inputs(wildcards):
    """Identities, splits and pixels of a figure that shows faces, if the configuration asks for it."""
    figure = config["figures"][wildcards.figure]
    if not figure.get("show_faces"):
        raise WorkflowError(
            f"figures/{wildcards.figure} shows faces. Set its show_faces: true if you may show them."
        )
    (block,) = blocks_of_figure(figure)
    return {
        "identities": identities_of_figure(figure),
        "splits": [splits_file(block["dataset"], seed) for seed in SEEDS],
        "images": f"results/data/{block['dataset']}/images.npy",
    }


def figures_of(faces):
    """Names of the figures that show faces, or of all others."""
    figures = config["figures"]
    return [
        name
        for name, each in figures.items()
        if (each["kind"] == "hardest_identities") == faces
    ]


def names_of_report():
    """Names of the tables, of those that are attacked, and of the figures of ROC curves, as the report reads them."""
    tables, figures = config["tables"], config["figures"]
    return {
        "tables": list(tables),
        "attacks": [name for name, each in tables.items() if each["privacy"]],
        "roc": [name for name, each in figures.items() if each["kind"] == "roc"],
    }


def report_inputs(wildcards):
    """Everything that the report is made from."""
    names, tables = names_of_report(), config["tables"]
    whole = [each for each in tables.values() if each.get("layout") != "tow"]
    data = that_need("data")
    identities = [
        file
        for each in whole
        for file in identity_files(each, SEEDS, data, each["blocks"])
    ]
    datasets = {
        block["dataset"] for each in tables.values() for block in each["blocks"]
    }
    return {
        "tables": [f"results/tables/{name}.csv" for name in names["tables"]],
        "attacks": [f"results/attacks/{name}.csv" for name in names["attacks"]],
        "roc": [f"results/figures/{name}.csv" for name in names["roc"]],
        "identities": sorted(set(identities)),
        "splits": [
            splits_file(name, seed) for name in sorted(datasets) for seed in SEEDS
        ],
    }
