"""What the workflow plans, without running it."""

import copy
from pathlib import Path

import pytest
import yaml
from tests.workflow.conftest import ROOT, SUPPORT_ONLY, WITH_DATA, Run, annotate, jobs, toy_config, write_config

PAPER = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def test_paper_grid_is_whole_and_shares_pretrained_models_across_request_sizes(snakemake: Run, tmp_path: Path) -> None:
    annotate(PAPER, tmp_path / "raw")
    config, data = str(ROOT / "config/config.yaml"), f"data_root={tmp_path / 'raw'}"
    planned = jobs(snakemake("--dry-run", "--configfile", config, "--config", data, "--", "tables", "figures").stdout)
    assert [f"table{number}" in PAPER["tables"] for number in range(1, 8)] == [True] * 7
    blocks = {(b["dataset"], b["n"]) for table in PAPER["tables"].values() for b in table["blocks"]}
    seeds = len(PAPER["seeds"])
    assert planned["train_pretrain"] == len(PAPER["datasets"]) * seeds == 9
    assert planned["train_retrain"] == len(blocks) * seeds == 24
    assert planned["train_ceiling"] == 24
    assert planned["make_table"] == len(PAPER["tables"])
    assert planned["make_figure"] == len(PAPER["figures"]) - 1  # figure 6 shows faces


@pytest.mark.slow
def test_small_configs_plan(snakemake: Run, tmp_path: Path) -> None:
    for name in ("demo", "celeba_small", "mufac_small", "mufac_gpu", "mini_paper"):
        path = ROOT / f"config/{name}.yaml"
        annotate(yaml.safe_load(path.read_text()), tmp_path / "data")
        planned = jobs(snakemake("--dry-run", "--configfile", str(path), "--", "all", "report").stdout)
        assert planned["make_table"] == len(yaml.safe_load(path.read_text())["tables"])
        assert planned["make_report"] == 1


def test_all_datasets_that_are_missing_are_told_at_once(snakemake: Run, tmp_path: Path) -> None:
    annotate({"datasets": {"mufac": PAPER["datasets"]["mufac"]}}, tmp_path)
    (tmp_path / "CelebA").mkdir()
    arguments = ("--configfile", str(ROOT / "config/config.yaml"), "--config", f"data_root={tmp_path}")
    said = snakemake("--dry-run", *arguments, "--", "tables", fails=True).stdout
    assert f"{tmp_path}/CelebAMask-HQ is not there. It needs CelebA-HQ-identity.txt, CelebAMask-HQ-attribute-" in said
    assert f"{tmp_path}/CelebA lacks identity_CelebA.txt, list_attr_celeba.txt." in said
    assert said.count("Where to get it: ") == 2
    assert "Exception" not in said and 'File "' not in said


@pytest.mark.slow
def test_what_is_made_without_data_that_is_gone_is_planned(snakemake: Run, tmp_path: Path) -> None:
    """Past the discard line: what a request needs is there; index, packed images and annotation files are not."""
    of = "celeba/n1/seed0"
    for name in ("models/celeba/seed0/pretrain.safetensors", f"requests/{of}.parquet",
                 f"artefacts/{of}/pretrain/ssd.safetensors"):  # fmt: skip
        (tmp_path / "results" / name).parent.mkdir(parents=True)
        (tmp_path / "results" / name).touch()
    arguments = ("--dry-run", "--configfile", str(ROOT / "config/config.yaml"), "--config", "data_root=gone", "--")
    assert jobs(snakemake(*arguments, f"results/unlearned/{of}/pretrain/ssd.safetensors").stdout) == {"unlearn": 1}


@pytest.mark.slow
def test_a_target_that_nothing_makes_is_told_with_those_that_there_are(snakemake: Run, tmp_path: Path) -> None:
    path, target = write_config(tmp_path, toy_config()), "results/tables/toi.csv"
    said = snakemake("--dry-run", "--configfile", str(path), "--", target, fails=True).stdout
    assert f"ConfigError in config.yaml: no rule makes {target}; allowed: tables of config.yaml: toy; files" in said
    assert "Exception" not in said


def test_what_was_typed_is_quoted(snakemake: Run, tmp_path: Path) -> None:
    path, typed = write_config(tmp_path, toy_config()), "data_root=2023_10"
    said = snakemake("--dry-run", "--configfile", str(path), "--config", typed, "--", "all", fails=True).stdout
    assert "data_root = 202310, allowed: text. " in said and f"\nTyped: --config {typed}\n" in said
    assert "Traceback" not in said and 'File "' not in said


def broken(**changes: object) -> dict[str, object]:
    """The toy configuration with one value replaced, by a path like ``datasets.toy.split.train``."""
    config = copy.deepcopy(toy_config())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "config.yaml: unknown key colour; allowed: data_root, "),
        ({"training__toy__epoch": 3}, "epoch"),
        ({"training__toy__lr": -1.0}, "training/toy/lr = -1.0, allowed: a number > 0"),
        ({"datasets__toy__split__train": 1.5}, "datasets/toy/split/train = 1.5, allowed: a number in (0, 1)"),
        ({"datasets__toy__layout": "imagenet"}, "imagenet"),
        ({"methods__ssd__params__alpha": 1.0}, "alpha"),
        ({"methods__ssd__params__selection": 0}, "methods/ssd/params/selection = 0, allowed: "),
        ({"selection__grids": {"ssd": {"selection": [0]}}}, "selection/grids/ssd/selection = 0, allowed: "),
        ({"methods__20/24": {"kind": "ssd", "params": {}}}, "methods: the key '20/24', allowed: a name of letters"),
        ({"figures__toy_bars__kind": "pie"}, "figures/toy_bars/kind = 'pie', allowed: table_bars, "),
        ({"methods__metaunlearn__params__terms": "third"}, "third"),
        ({"methods__ssd__kind": "forget_everything"}, "forget_everything"),
        ({"methods__ssd__kind": "mine:Mine"}, "needs"),
        ({"methods__ssd__needs": "data"}, "needs"),
        ({"methods__jit__params__noise_std": 0}, "noise_std = 0, allowed: a number > 0"),
        ({"methods__pgu__params__gamma": 1}, "gamma = 1, allowed: a number in (0, 1)"),
        ({"methods__scrub__params__crop_scale": [0.5]}, "crop_scale"),
        (
            {"tables__toy__methods": ["sdd"]},
            "method 'sdd' is not in the config; it has: ssd, metaunlearn, jit, pgu, scrub, bad_teacher",
        ),
        ({"tables__toy__blocks": [{"dataset": "toy", "n": 4}]}, "n = 4, but datasets/toy/split/n_ranked = 3"),
        ({"tables__toy__blocks": [{"dataset": "tyo", "n": 3}]}, "no dataset 'tyo'"),
        ({"figures__toy_bars__table": "tyo"}, "no table 'tyo'"),
        (
            {"methods__ssd__overrides": {"tyo/n3": {"selection": 5.0}}},
            "methods/ssd/overrides/tyo/n3: no dataset 'tyo'; there are: toy",
        ),
    ],
)
def test_impossible_configuration_is_refused(
    snakemake: Run, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    config = write_config(tmp_path, broken(**changes))
    said = snakemake("--dry-run", "--configfile", str(config), fails=True).stdout
    assert message in said
    assert "Traceback" not in said and "pydantic" not in said and 'File "' not in said


@pytest.mark.slow
def test_names_that_yaml_takes_for_something_else_are_told_without_places_in_our_code(
    snakemake: Run, tmp_path: Path
) -> None:
    config = toy_config()
    config["methods"][1] = config["methods"]["ssd"]
    path = write_config(tmp_path, config)
    said = snakemake("--dry-run", "--configfile", str(path), fails=True).stdout
    assert 'config.yaml: methods/1: the key 1 is a number, allowed: text; quote it: "1"' in said
    assert "Traceback" not in said and 'File "' not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("seeds: [7]", "the key 'seeds' stands there twice"),
        ("x: !!python/tuple [1]", "the tag 'tag:yaml.org,2002:python/tuple' asks for an object"),
    ],
)
def test_a_configuration_that_is_not_what_it_seems_is_refused(
    snakemake: Run, tmp_path: Path, line: str, part: str
) -> None:
    path = write_config(tmp_path, toy_config())
    path.write_text(f"{path.read_text()}{line}\n")
    said = snakemake("--dry-run", "--configfile", str(path), fails=True).stdout
    assert "ConfigError in config.yaml:" in said and part in said and "Traceback" not in said


def test_faces_that_may_not_be_shown_are_refused_by_name(snakemake: Run, tmp_path: Path) -> None:
    config = toy_config()
    config["figures"]["faces"] = {
        "kind": "hardest_identities", "table": "toy", "blocks": config["tables"]["toy"]["blocks"], "show_faces": False,
    }  # fmt: skip
    path = str(write_config(tmp_path, config))
    said = snakemake("--dry-run", "--configfile", path, "--", "results/figures/faces.pdf", fails=True).stdout
    assert "config.yaml: figures/faces shows faces. Set its show_faces: true if you may show them." in said
    assert "Traceback" not in said and "Exception" not in said and 'File "' not in said


def test_unlearning_lists_no_training_data(snakemake: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, toy_config())
    output = snakemake("--dry-run", "--configfile", str(config), "--", "tables").stdout
    jobs_of_rule = output.split("rule unlearn:")[1:]
    assert len(jobs_of_rule) == len(SUPPORT_ONLY)
    for job in jobs_of_rule:
        files = next(line for line in job.splitlines() if "input: " in line).split("input: ")[1].split(", ")
        method = next(line for line in job.splitlines() if "wildcards: " in line).split("method=")[1]
        kept = [] if method == "jit" else ["artefacts"]
        assert sorted(file.split("/")[1] for file in files) == [*kept, "models", "requests"]
    assert output.count("rule unlearn_with_data:") == len(WITH_DATA)
