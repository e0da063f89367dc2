# Checks of the configuration, what several rule files use, and the input functions that look at files; the only rule
# file with `def`. Input functions that follow from the configuration alone are methods of `runs` and `results`.
import json
import os
import re
import shlex
import sys
from pathlib import Path

import snakemake.exceptions
from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile

from oneshui.config import QUERIES, changed_keys, index_options, raw_path
from oneshui.data.layouts import annotation_files
from oneshui.errors import ConfigError
from oneshui.files import read_header, spec_hash
from oneshui.forks import start_server
from oneshui.inputs import Results, Runs, methods_that_keep, methods_that_need
from oneshui.planning.annotations import tracked_spec
from oneshui.planning.checks import check, refuse_braces, refuse_unwritable
from oneshui.planning.missing import missing_datasets, missing_weights, no_such_file
from oneshui.planning.networks import refuse_networks
from oneshui.presence import SNAKEMAKE, hold, locked_message
from oneshui.runs import Model, Run
from oneshui.schemas import INDEX, read_meta, read_table
from oneshui.yaml_files import read_yaml

CONFIG_FILE = ", ".join(map(os.path.relpath, workflow.configfiles))
# values that were typed, as they were typed
TYPED = [
    arg for arg in sys.argv if arg.partition("=")[0] in workflow.config_settings.config
]
# files that come with oneshui, wherever --directory puts the results
RESOURCES = os.path.join(workflow.basedir, "resources")
NETWORKS = os.path.join(RESOURCES, "networks.csv")


def refuse(error):
    """End with the message alone: Snakemake prints the places in our code for every other exception."""
    about = [
        arg for arg in TYPED if re.search(rf"\b{arg.partition('=')[0]}\b", str(error))
    ]
    typed = f"\nTyped: --config {' '.join(map(shlex.quote, about))}" if about else ""
    sys.exit(f"ConfigError in {error}{typed}")


# held until this Snakemake dies; its own message on a locked folder does not say whether another one lives
HELD = hold(SNAKEMAKE) if workflow.is_main_process else None
snakemake.exceptions.LockException = lambda: WorkflowError(
    locked_message(HELD, sys.argv)
)


def in_our_words(record):
    """Rewrite what Snakemake logs where it cannot know the reason: data or names that are not there."""
    found = re.search(r"No rule to produce (\S+) \(", str(record.msg))
    files = re.findall(r"^ {8}(\S.*)$", str(record.msg), re.MULTILINE)
    match getattr(record, "exception", None):
        case "MissingRuleException" if found:
            record.msg = no_such_file(config, found[1], CONFIG_FILE)
        case "MissingInputException":
            targets = workflow.dag_settings.targets
            published = Path(RESOURCES, "datasets.yaml")
            record.msg = (
                missing_datasets(config, targets, files, published)
                or missing_weights(config, files, CONFIG_FILE)
                or record.msg
            )
    return True


logger.addFilter(in_our_words)

try:
    refuse_braces(str(workflow.basedir), "the folder of oneshui")
    refuse_unwritable(".")
    for path in workflow.configfiles:
        read_yaml(os.path.relpath(path), templates=True)
    check(config, CONFIG_FILE)
    refuse_networks(config, NETWORKS, ".snakemake/oneshui/networks", CONFIG_FILE)
except ConfigError as error:
    refuse(error)

# GPUs that a GPU rule asks for, and CPU threads beside them. Without a GPU one thread a job fills the cores best,
# because several jobs run at once.
GPUS = 0 if config["device"] == "cpu" else 1
THREADS = 4 if GPUS else 1

SEEDS = config["seeds"]
runs, results = Runs(config), Results(config)

# not the whole of it: a new gamma must not ask a model anew
ATTACK_QUERIES = {key: config["attack"][key] for key in QUERIES}
ATTACK = {key: value for key, value in config["attack"].items() if key != "refit_c"}
PROBE = {key: config["attack"][key] for key in ("max_reference", "refit_c")}

# everything that can change a result; for steps that look at the whole configuration
SETTINGS = spec_hash(
    {
        k: v
        for k, v in config.items()
        if k not in ("data_root", "weights_root", "jobs_per_gpu")
    }
)


def one_of(names):
    """A wildcard constraint that matches the given names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


def raw_folder(wildcards):
    """The folder of raw images: the user's, or the one that render_faces fills."""
    return raw_path(config, wildcards.dataset)


def faces_inputs(wildcards):
    """Files of a figure that shows faces. Refuses one that the configuration does not ask for."""
    try:
        return results.faces_inputs(wildcards)
    except ConfigError as error:
        refuse(f"{CONFIG_FILE}: {error}")


def refuse_stale_index(wildcards):
    """Without raw data an existing index is used as it is; it must be the one that the configuration describes."""
    path = f"results/data/{wildcards.dataset}/index.parquet"
    if os.path.exists(path) and read_meta(path).get("spec") != spec_hash(
        runs.index_spec(wildcards)
    ):
        raise WorkflowError(
            f"{path} was made with other options than datasets/{wildcards.dataset} has now, and the raw data in "
            f"{raw_folder(wildcards)} is not there to make it again. Restore the data, the options, or data_root."
        )


def raw_files(wildcards):
    """The annotation files of a raw folder, there or not."""
    entry = config["datasets"][wildcards.dataset]
    return annotation_files(entry["layout"], raw_folder(wildcards), entry["options"])


def raw_inputs(wildcards):
    """Files whose change means a new index. Without them an index that is there is used as it is."""
    if "synthetic" in config["datasets"][wildcards.dataset]:
        return [f"results/raw/{wildcards.dataset}/rendered.json"]
    files = raw_files(wildcards)
    if not all(map(os.path.exists, files)):
        refuse_stale_index(wildcards)
    return files


def raw_files_there(wildcards):
    """What a dataset check reads: it reports what is missing, so that the other datasets are checked all the same."""
    if "synthetic" in config["datasets"][wildcards.dataset]:
        return raw_inputs(wildcards)
    return list(filter(os.path.exists, raw_files(wildcards)))


def index_spec(wildcards):
    """What an index depends on; with a hash of its annotation files where they are not those it was made from."""
    path = f"results/data/{wildcards.dataset}/index.parquet"
    compared = "params" in map(str, workflow.rerun_triggers)
    return tracked_spec(
        runs.index_spec(wildcards),
        raw_folder(wildcards),
        path,
        recorded=workflow.persistence.params(IOFile(path)) if compared else None,
        cache=".snakemake/oneshui/annotations.json",
    )


def counted_datasets(wildcards):
    """Images and identities of the datasets that are indexed as they are configured now."""
    counted = {}
    for dataset, entry in config["datasets"].items():
        path = f"results/data/{dataset}/index.parquet"
        if os.path.exists(path):
            index, meta = read_table(path, INDEX)
            if meta.get("spec") == spec_hash(index_options(entry)):
                counted[dataset] = (len(index), index["identity"].nunique())
    return counted


def training_spec(trained):
    """What a trained model depends on. Refuses to go on where one exists that was trained with something else."""

    def of(wildcards):
        spec = runs.training_spec(wildcards)
        run = Run(wildcards.dataset, wildcards.get("n"), int(wildcards.seed))
        path = run.weights(Model(trained.format(**wildcards)))
        if os.path.exists(path):
            old = read_header(path).get("spec", {})
            changes = changed_keys(old, json.loads(json.dumps(spec)))
            if changes:
                raise WorkflowError(
                    f"{path} was trained with another configuration, and trained models are protected: they are "
                    f"never deleted or replaced. Changed: {'; '.join(changes)}. Undo the change, give the dataset "
                    "another name in the config, or move the model away to train again."
                )
        return spec

    return of


def growing(amount):
    """Memory or run time that a cluster sets aside: as much again with every retry."""
    return lambda wildcards, attempt: amount * attempt


def kept(path):
    """Unlearned models are large and quick to make again: keep them only if the config says so."""
    return path if config["keep_unlearned"] else temp(path)
