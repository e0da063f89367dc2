"""What a configuration costs: jobs, passes, hours and disk, by hand on small numbers."""

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from oneshui.config import check_config
from oneshui.errors import ConfigError, DataError
from oneshui.methods.costs import Sizes
from oneshui.methods.params import IDENTITY_EDITS_COST
from oneshui.planning.jobs import Job, planned_jobs
from oneshui.planning.passes import passes_of
from oneshui.planning.plan import COLUMNS, plan, to_text
from oneshui.planning.rates import Rate, read_rates
from oneshui.planning.sizes import Size, run_of, size_of

ROOT = Path(__file__).parents[2]
META = {
    "inner_lr": 0.1, "lr": 1e-3, "epochs": 3, "simulated_n": 20, "batch_size": 64, "micro_batch": 64, "hidden": 512,
    "dropout": 0.5, "inputs": ["logits", "features", "target", "identity"], "outer_loss": "equation_6",
    "terms": "both", "accuracy_weight": True, "distance": "smooth_l1", "val_gradient": False, "frozen": [],
    "jvp": "exact",
}  # fmt: skip
METHODS: dict[str, Any] = {
    "ssd": {"kind": "ssd", "params": {"fisher": "image"}},
    "pgu": {"kind": "pgu", "params": {"epochs": 4}},
    "jit": {"kind": "jit", "params": {"n_samples": 25}},
    "scrub": {"kind": "scrub", "params": {"epochs": 4, "forget_epochs": 2}},
    "bad_teacher": {"kind": "bad_teacher", "params": {"epochs": 2}},
    "metaunlearn": {"kind": "metaunlearn", "params": META},
    "metaunlearn_first": {"kind": "metaunlearn", "params": {**META, "terms": "first"}},
    "fold_model": {"kind": "fold_model", "params": {"folds": 4}},
    "edits": {
        "kind": "identity_edits",
        "params": {"folds": 4, "blocks": 2, "rank": None, "spread": 1.0, "calibrate": "none", "max_positions": 9},
    },
    "mine": {"kind": "mine:Mine", "needs": "artefact", "params": {}},
    "mine_alone": {"kind": "mine:Alone", "needs": "nothing", "params": {}},
    "mine_with_data": {"kind": "mine:WithData", "needs": "data", "params": {}},
}
DATASET: dict[str, Any] = {
    "layout": "celeba", "identities": None, "stored_px": [64, 48], "split": {"train": 0.6, "val": 0.2, "n_ranked": 10}
}  # fmt: skip
TRAINING: dict[str, Any] = {
    "model": "net.tag", "model_options": {}, "init_weights": "random", "input_px": 32, "epochs": 3, "precision": "bf16"
}  # fmt: skip
#: 590 images to train on, 200 to validate and 200 to test with, 9 forget images of each identity
SIZE = Size(1000, 100)
RATE = Rate(
    machine="here", device="cpu", model="net", options="{}", px=32, precision="fp32", forward_s=0.01, train_s=0.1,
    fisher_s=0.2, gram_s=0.3, eigh_s=60.0, job_s=10.0, light_job_s=1.0, parameters=1000, grams=50.0, features=8,
    edit_width=100.0, source="measured",
)  # fmt: skip


def table(*methods: str, n: tuple[int, ...] = (5,), dataset: str = "toy", privacy: bool = False) -> dict[str, Any]:
    return {"blocks": [{"dataset": dataset, "n": size} for size in n], "methods": list(methods), "privacy": privacy}


def config_of(*tables: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A configuration with these tables, one seed, datasets toy and other."""
    return copy.deepcopy({
        "device": "cpu", "seeds": [0], "keep_unlearned": False, "methods": METHODS,
        "datasets": {"toy": DATASET, "other": {**DATASET}}, "training": {"toy": TRAINING, "other": {**TRAINING}},
        "tables": {f"table{i}": made for i, made in enumerate(tables)}, "attack": {"views": 2, "max_reference": 100},
        **changes,
    })  # fmt: skip


def counted(config: Mapping[str, Any]) -> Counter[str]:
    return Counter(job.stage for job in planned_jobs(config))


def passes(method: str, stage: str, origin: str = "pretrain", **params: Any) -> Mapping[str, float]:
    """Return what a job of a method on the toy data puts through the network."""
    config = config_of()
    config["methods"][method]["params"] |= params
    job = Job(stage, "toy", 5, 0, f"{origin}/{method}")
    return passes_of(config, run_of(config, SIZE, job), job)


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_a_pretrained_model_is_trained_and_scored_once_for_all_request_sizes() -> None:
    jobs = counted(config_of(table("ssd", n=(3, 5)), seeds=[0, 1]))
    assert jobs["train_pretrain"] == jobs["score_pretrain"] == jobs["split_identities"] == 2
    assert jobs["train_retrain"] == jobs["score_retrained"] == jobs["export_request"] == 4
    assert jobs["measure_trained"] == 8  # pretrain is measured on the images of each request
    assert jobs["precompute_artefact"] == jobs["unlearn"] == jobs["score_unlearned"] == jobs["measure_unlearned"] == 4
    assert jobs["index_dataset"] == jobs["pack_images"] == jobs["make_table"] == jobs["tables"] == 1


def test_tables_share_what_both_ask_for() -> None:
    jobs = counted(config_of(table("ssd", "jit"), table("jit", "scrub"), table("jit", dataset="other")))
    assert jobs["make_table"] == 3
    assert jobs["unlearn"] == 3 and jobs["unlearn_with_data"] == 1  # ssd, jit, scrub on toy, jit on other
    assert jobs["train_pretrain"] == jobs["train_retrain"] == 2


def test_without_privacy_nothing_is_attacked() -> None:
    stages = set(counted(config_of(table("ssd", "scrub"))))
    absent = {"train_ceiling", "export_wrong_photos", "attack_trained", "probe_trained", "summarise_attacks"}
    assert not absent & stages


def test_privacy_asks_for_controls_and_reference_models() -> None:
    jobs = counted(config_of(table("ssd", "jit", "scrub", privacy=True)))
    assert jobs["train_ceiling"] == jobs["export_wrong_photos"] == jobs["summarise_attacks"] == 1
    assert jobs["precompute_artefact"] == 2  # ssd's of the pretrained and of the retrained model, jit keeps nothing
    assert jobs["unlearn"] == 6  # two methods, three origins: pretrain, retrain, wrong_photos
    assert jobs["unlearn_with_data"] == 2  # no photo could be a wrong one
    assert jobs["score_unlearned"] == 8 and jobs["score_retrained"] == 2
    assert jobs["attack_trained"] == jobs["probe_trained"] == jobs["measure_trained"] == 3
    assert jobs["attack_unlearned"] == jobs["probe_unlearned"] == 3
    assert jobs["measure_unlearned"] == 5


def test_wrong_photos_are_for_methods_that_work_from_photos() -> None:
    assert "export_wrong_photos" not in counted(config_of(table("scrub", "bad_teacher", privacy=True)))


def test_privacy_of_one_table_does_not_spread_to_another() -> None:
    jobs = counted(config_of(table("ssd", privacy=True), table("ssd", "jit", n=(3,))))
    assert jobs["train_ceiling"] == 1 and jobs["attack_unlearned"] == 1 and jobs["unlearn"] == 3 + 2


def test_what_serves_every_request_size_is_made_once_for_the_original_model() -> None:
    jobs = planned_jobs(config_of(table("ssd", "edits", n=(3, 5), privacy=True)))
    made = {job for job in jobs if job.verb == "precompute" and job.row.endswith("/edits")}
    assert made == {Job("precompute_for_every_n", "toy", None, 0, "pretrain/edits")}
    assert sum(job.stage == "precompute_artefact" for job in jobs) == 4  # ssd: two sizes, two origins
    assert sum(job.stage == "train_fold" for job in jobs) == 4
    assert sum(job.stage == "unlearn" and job.row == "pretrain/edits" for job in jobs) == 2


def test_entries_of_one_kind_are_methods_of_their_own() -> None:
    jobs = planned_jobs(config_of(table("metaunlearn", "metaunlearn_first")))
    artefacts = {job.row for job in jobs if job.stage == "precompute_artefact"}
    assert artefacts == {"pretrain/metaunlearn", "pretrain/metaunlearn_first"}


def test_methods_of_your_own_get_what_they_need() -> None:
    jobs = planned_jobs(config_of(table("mine", "mine_alone", "mine_with_data")))
    rows = {stage: {job.row for job in jobs if job.stage == stage} for stage in counted({**config_of(table("ssd"))})}
    assert rows["precompute_artefact"] == {"pretrain/mine"}
    assert rows["unlearn"] == {"pretrain/mine", "pretrain/mine_alone"}
    assert Job("unlearn_with_data", "toy", 5, 0, "pretrain/mine_with_data") in jobs


def test_initial_weights_are_fetched_once() -> None:
    config = config_of(table("ssd"), table("ssd", dataset="other"))
    assert "fetch_weights" not in counted(config)
    config["training"]["toy"]["init_weights"] = "weights/local.safetensors"
    assert "fetch_weights" not in counted(config)
    for training in config["training"].values():
        training["init_weights"] = "timm"
    assert [job.row for job in planned_jobs(config) if job.stage == "fetch_weights"] == ["net.tag"]


def test_synthetic_faces_are_rendered() -> None:
    config = config_of(table("ssd"), table("ssd", dataset="other"))
    config["datasets"]["toy"]["synthetic"] = {}
    assert [job.dataset for job in planned_jobs(config) if job.stage == "render_faces"] == ["toy"]


# --- sizes -----------------------------------------------------------------------------------------------------------

PUBLISHED = {"celeba": {"expected": {"images": 1000, "identities": 100, "images_per_identity": 10.0}}}


def test_published_size_and_a_share_of_it() -> None:
    assert size_of("toy", DATASET, PUBLISHED) == Size(1000, 100)
    assert size_of("toy", {**DATASET, "identities": 25}, PUBLISHED) == Size(250, 25)


def test_rendered_size() -> None:
    synthetic = {"n_identities": 40, "images_per_identity": [4, 8]}
    assert size_of("toy", {**DATASET, "synthetic": synthetic}, {}) == Size(240, 40)


def test_size_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"datasets/badges: .* manifest.*results/data/badges/index.parquet"):
        size_of("badges", {**DATASET, "layout": "manifest"}, PUBLISHED)
    with pytest.raises(ConfigError, match="10 images of 20 identities"):
        Size(10, 20)


def test_sets_of_a_run() -> None:
    run = run_of(config_of(), SIZE, Job("score_pretrain", "toy", None, 0, "pretrain"))
    assert (run.trained, run.people, run.each, run.val, run.test) == (590, 60, 10, 200, pytest.approx(200))
    assert (run.n, run.forget, run.asked, run.reference) == (0, 0, 90, 100)
    run = run_of(config_of(), SIZE, Job("precompute_artefact", "toy", 5, 0, "retrain/ssd"))
    assert (run.trained, run.people, run.forget, run.retain) == (545, 55, 45, 545)
    few = config_of(attack={"views": 2, "max_reference": 10**6})
    assert run_of(few, SIZE, Job("score_pretrain", "toy", None, 0, "pretrain")).reference == 590 - 90 + 200


# --- passes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "origin", "expected"),
    [
        ("ssd", "pretrain", {"fisher_s": 590}),
        ("ssd", "retrain", {"fisher_s": 545}),  # an attack's reference keeps nothing of the forget set
        ("pgu", "pretrain", {"gram_s": 590}),
        ("mine", "pretrain", {}),
    ],
)
def test_what_an_artefact_costs(method: str, origin: str, expected: Mapping[str, float]) -> None:
    assert passes(method, "precompute_artefact", origin) == expected


@pytest.mark.parametrize(
    ("method", "stage", "expected"),
    [
        ("ssd", "unlearn", {"fisher_s": 5}),
        ("pgu", "unlearn", {"gram_s": 5, "eigh_s": 1, "train_s": 4 * 5}),
        ("jit", "unlearn", {"forward_s": 25 * 5, "train_s": 5}),
        ("metaunlearn", "unlearn", {"train_s": 5}),
        ("scrub", "unlearn_with_data", {"train_s": 4 * 545 + 2 * 45, "forward_s": 4 * 545 + 2 * 45}),
        ("bad_teacher", "unlearn_with_data", {"train_s": 2 * 590, "forward_s": 2 * 590}),
        ("mine_with_data", "unlearn_with_data", {}),
    ],
)
def test_what_a_request_costs(method: str, stage: str, expected: Mapping[str, float]) -> None:
    assert passes(method, stage) == expected


def test_gradients_of_batches_are_training_passes() -> None:
    assert passes("ssd", "precompute_artefact", fisher="batch") == {"train_s": 590}


@pytest.mark.parametrize(
    ("stage", "n", "row", "expected"),
    [
        ("train_pretrain", None, "pretrain", {"train_s": 3 * 590, "forward_s": 3 * 200}),
        ("train_retrain", 5, "retrain", {"train_s": 3 * 545, "forward_s": 3 * 200}),
        ("train_ceiling", 5, "ceiling", {"train_s": 3 * 545, "forward_s": 3 * 200}),
        ("score_pretrain", None, "pretrain", {"forward_s": 1000 + 2 * (90 + 200 + 100)}),
        ("score_unlearned", 5, "pretrain/ssd", {"forward_s": 1000 + 2 * (90 + 200 + 100)}),
        ("measure_trained", 5, "pretrain", {}),
    ],
)
def test_what_training_and_scoring_cost(stage: str, n: int | None, row: str, expected: Mapping[str, float]) -> None:
    config, job = config_of(), Job(stage, "toy", n, 0, row)
    assert passes_of(config, run_of(config, SIZE, job), job) == pytest.approx(expected)


def test_a_simulated_request_is_worth_376_forward_passes() -> None:
    """docs/benchmarks.md: 20 photos, 64 forget and 64 validation images."""
    job = Job("precompute_artefact", "toy", 5, 0, "pretrain/metaunlearn")
    config = config_of()
    config["methods"]["metaunlearn"]["params"]["epochs"] = 1
    sets = asdict(run_of(config, SIZE, job)) | {"people": 20, "each": 4.2, "val": 64}  # 20 x 3.2 = 64
    found = passes_of(config, Sizes(**sets), job)
    before_and_after = 2 * 64 + 3 * 20  # validation twice, one step to see what it destroys
    assert 3 * found["train_s"] + found["forward_s"] - before_and_after == pytest.approx(376)


@pytest.mark.parametrize(
    ("changes", "train", "forward"),
    [
        # 60 people: 3 requests an epoch, 9 in all, of 20 photos and 180 forget images in 3 batches
        ({}, 9 * (20 + 180), 9 * (3 * 20 + 3 * 64)),
        ({"epochs": 1}, 3 * (20 + 180), 3 * (3 * 20 + 3 * 64)),
        ({"simulated_n": 40}, 3 * 2 * (40 + 360), 3 * 2 * (3 * 40 + 6 * 64)),  # the last request is filled up
        ({"batch_size": 300}, 9 * (20 + 180), 9 * (3 * 20 + 200)),  # no more validation images than there are
        ({"jvp": "finite_difference"}, 9 * (20 + 180), 9 * (2 * 20 + 3 * 64)),
        ({"val_gradient": True}, 9 * (20 + 180 + 3 * 64), 9 * 3 * 20),
        ({"val_gradient": True, "terms": "second"}, 9 * (20 + 180), 9 * (3 * 20 + 3 * 64)),
        ({"outer_loss": "scrub"}, 9 * (20 + 180 + 192), 9 * (3 * 20 + 180 + 192)),
    ],
)
def test_meta_training(changes: Mapping[str, Any], train: float, forward: float) -> None:
    found = passes("metaunlearn", "precompute_artefact", **changes)
    last = changes.get("simulated_n", 20)
    assert found["train_s"] == pytest.approx(train + last)
    assert found["forward_s"] == pytest.approx(forward + 2 * 200)


def test_a_retrained_model_has_fewer_people_to_practise_on() -> None:
    assert passes("metaunlearn", "precompute_artefact", "retrain", simulated_n=11)["train_s"] == pytest.approx(
        3 * 5 * (11 + 99) + 11  # 55 people
    )


# --- hours and disk --------------------------------------------------------------------------------------------------


def planned(config: Mapping[str, Any], *rates: Rate) -> pd.DataFrame:
    return plan(config, rates or [RATE], counts={"toy": SIZE, "other": SIZE})


def of(plan: pd.DataFrame, column: str) -> dict[str, float]:
    return dict(zip(plan["stage"], plan[column], strict=True))


def test_hours_are_passes_times_rates_and_the_start_of_each_job() -> None:
    hours = of(planned(config_of(table("ssd", "pgu"), seeds=[0, 1])), "hours")
    assert 3600 * hours["train_pretrain"] == pytest.approx(2 * (10 + 1770 * 0.1 + 600 * 0.01))
    assert 3600 * hours["precompute_artefact"] == pytest.approx(2 * (10 + 590 * 0.2) + 2 * (10 + 590 * 0.3))
    assert 3600 * hours["unlearn"] == pytest.approx(2 * (10 + 5 * 0.2) + 2 * (10 + 5 * 0.3 + 60 + 20 * 0.1))
    assert 3600 * hours["score_unlearned"] == pytest.approx(4 * (10 + 1780 * 0.01))
    assert 3600 * hours["measure_trained"] == pytest.approx(4 * 1.0)
    assert hours["tables"] == 0


def test_images_are_counted_by_kind_of_pass() -> None:
    found = planned(config_of(table("ssd", "pgu", "scrub")))
    forward, train = of(found, "forward_images"), of(found, "train_images")
    assert (forward["train_retrain"], train["train_retrain"]) == (600, 1635)
    assert (forward["precompute_artefact"], train["precompute_artefact"]) == (590, 590)  # pgu, ssd
    assert (forward["unlearn"], train["unlearn"]) == (5, 5 + 20)  # eigenvectors are no images
    assert (forward["unlearn_with_data"], train["unlearn_with_data"]) == (2270, 2270)
    assert (forward["score_pretrain"], train["score_pretrain"]) == (pytest.approx(1780), 0)


def test_rows_are_rules_in_the_order_of_the_flow() -> None:
    found = planned(config_of(table("ssd", privacy=True)))
    assert tuple(found.columns) == COLUMNS
    assert found["stage"].tolist()[:4] == ["index_dataset", "pack_images", "split_identities", "export_request"]
    assert found["stage"].tolist()[-2:] == ["make_table", "tables"]
    assert of(found, "jobs") == counted(config_of(table("ssd", privacy=True)))


def test_disk_by_stage() -> None:
    config = config_of(table("ssd", "pgu", privacy=True))
    config["training"]["toy"]["init_weights"] = "timm"
    disk = {stage: gb * 1e9 for stage, gb in of(planned(config), "disk_gb").items()}
    assert disk["pack_images"] == pytest.approx(1000 * 3 * 64 * 48)
    assert disk["export_request"] == pytest.approx(5 * 3 * 64 * 48)
    assert disk["fetch_weights"] == disk["train_pretrain"] == disk["train_ceiling"] == pytest.approx(4000)
    assert disk["precompute_artefact"] == pytest.approx(2 * 4000 + 2 * 4 * 50)  # two origins
    rows = 1000 * (14 + 80) + 2 * 390 * 14
    fit = 100 * 500 / 700
    features = (90 + 200 + fit + 10) * (4 + 2 * 8)
    assert disk["score_pretrain"] == pytest.approx(rows + features)
    assert disk["attack_trained"] == pytest.approx(3 * 25 * (45 + 200))
    assert disk["unlearn"] == 0 and disk["score_unlearned"] == pytest.approx(6 * rows)
    kept = {stage: gb * 1e9 for stage, gb in of(planned({**config, "keep_unlearned": True}), "disk_gb").items()}
    assert kept["unlearn"] == pytest.approx(6 * 4000)
    assert kept["score_unlearned"] == pytest.approx(6 * (rows + features))


def test_disk_of_a_meta_loss_and_of_rendered_faces() -> None:
    config = config_of(table("metaunlearn"))
    config["datasets"]["toy"]["synthetic"] = {"image_px": 100}
    disk = {stage: gb * 1e9 for stage, gb in of(planned(config), "disk_gb").items()}
    width = 40 + 8 + 40 + 64
    assert disk["precompute_artefact"] == pytest.approx(4 * (64 * 60 + 512 * width + 512 * 512) + 8 * 60)
    assert disk["render_faces"] == pytest.approx(1000 * 3 * 100 * 100)


@pytest.mark.parametrize(
    ("blocks", "spread", "calibrate", "of_each"),
    [(1, 0.0, "none", 2), (2, 1.0, "none", 5 + 1), (2, 0.5, "halfway", 5 + 1 + 8)],
)
def test_identity_edits_ask_all_fold_models_of_a_person_only_for_earlier_blocks(
    blocks: int, spread: float, calibrate: str, of_each: int
) -> None:
    found = passes("edits", "precompute_for_every_n", blocks=blocks, spread=spread, calibrate=calibrate)
    val = 200 if spread else 100
    assert found == {"forward_s": 5 * (590 + val) + of_each * 590}  # the model and four fold models


def test_disk_of_what_serves_every_request_size_counts_once() -> None:
    config = config_of(table("fold_model", n=(3, 5)))
    assert of(planned(config), "disk_gb")["precompute_for_every_n"] * 1e9 == pytest.approx(4 * 4 * 1000)
    config = config_of(table("edits", n=(3, 5)))
    for px, rank, rows in ((32, None, 590), (64, None, 4 * 590), (224, None, 9 * 590), (64, 7, 7 * 60), (64, 99, 2360)):
        config["methods"]["edits"]["params"]["rank"] = rank
        config["training"]["toy"]["input_px"] = px
        disk = of(planned(config, replace(RATE, px=px)), "disk_gb")["precompute_for_every_n"]
        assert disk * 1e9 == pytest.approx(4 * 2 * (rows * 100 + 100 * 100)), (px, rank)


@pytest.mark.parametrize(("blocks", "rank", "floats"), [(1, None, 62_315), (5, None, 269_579), (1, 4, 5900)])
def test_disk_of_identity_edits_of_real_people(blocks: int, rank: int | None, floats: int) -> None:
    """What was measured on 240 people with 10.6 images each, EfficientNet-Lite0 at 64 px; d_in is 1152 or less."""
    network = next(rate for rate in read_rates(ROOT / "resources/rates.csv") if rate.parameters == 3422248)
    spec = {"blocks": blocks, "rank": rank, "max_positions": 64}
    sizes = replace(run_of(config_of(), SIZE, Job("", "toy")), people=240, trained=240 * 10.6)
    assert IDENTITY_EDITS_COST.artefact_bytes is not None
    found = IDENTITY_EDITS_COST.artefact_bytes(spec, sizes, replace(network, px=64))
    assert found == pytest.approx(4 * (240 * floats + blocks * 1152**2), rel=0.35)


# --- rates -----------------------------------------------------------------------------------------------------------

GPU = replace(RATE, machine="card", device="cuda", job_s=20.0)
HALF = replace(
    GPU, precision="bf16", train_s=0.02, forward_s=0.005, fisher_s=math.nan, gram_s=math.nan, eigh_s=math.nan
)


def test_on_a_gpu_training_has_its_own_precision_and_nothing_else() -> None:
    config = config_of(table("ssd", "scrub"), device="auto")
    found = planned(config, GPU, HALF)
    hours = of(found, "hours")
    assert 3600 * hours["train_pretrain"] == pytest.approx(20 + 1770 * 0.02 + 600 * 0.005)
    assert 3600 * hours["score_pretrain"] == pytest.approx(20 + 1780 * 0.01)
    assert 3600 * hours["unlearn_with_data"] == pytest.approx(20 + 2270 * 0.11)
    assert found.attrs["machine"] == "card"


def test_a_machine_that_was_measured_comes_before_an_estimate() -> None:
    config = config_of(table("ssd"), device="auto")
    guess = [replace(rate, machine="guess", source="estimate: fast") for rate in (GPU, HALF)]
    assert planned(config, *guess).attrs["machine"] == "guess"
    assert planned(config, *guess, GPU, HALF).attrs["machine"] == "card"
    assert planned({**config, "device": "cpu"}, *guess, GPU, HALF, RATE).attrs["machine"] == "here"


@pytest.mark.parametrize(
    ("changes", "methods", "missing"),
    [
        ({"px": 64}, ["ssd"], "fisher_s of net at 32 px in fp32"),
        ({"options": '{"depth": 2}'}, ["ssd"], "fisher_s of net at 32 px in fp32"),
        ({"model": "other"}, ["ssd"], "fisher_s of net at 32 px in fp32"),
        ({"eigh_s": math.nan}, ["pgu"], "here lacks eigh_s of net at 32 px in fp32"),
        ({"device": "cuda"}, ["ssd"], "none with device: cpu"),
    ],
)
def test_a_missing_rate_is_an_error_that_says_how_to_measure_it(
    changes: dict[str, Any], methods: list[str], missing: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{missing}.*python -m benchmarks.rates CONFIG"):
        planned(config_of(table(*methods)), replace(RATE, **changes))


def test_a_job_starts_as_when_the_network_of_the_configuration_was_measured() -> None:
    others = [replace(RATE, model="other", job_s=70.0, light_job_s=7.0), replace(RATE, px=64, job_s=80.0)]
    found = planned(config_of(table("jit")), *others, RATE)
    assert "a job starts in 10.0 s with torch, in 1.0 s without" in " ".join(to_text(found).split())
    assert 3600 * of(found, "hours")["measure_trained"] == pytest.approx(2 * 1.0)
    assert of(found, "hours") == of(planned(config_of(table("jit"))), "hours")


def test_rates_that_nothing_asks_for_may_be_missing() -> None:
    planned(config_of(table("jit")), replace(RATE, fisher_s=math.nan, gram_s=math.nan, eigh_s=math.nan))


def test_a_dataset_without_a_count_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nobody has counted toy; there are counts of: other"):
        plan(config_of(table("ssd")), [RATE], counts={"other": SIZE})


def write_rates(path: Path, *rates: Rate, **changes: object) -> Path:
    """Write a file of rates, the last row changed."""
    frame = pd.DataFrame([asdict(rate) for rate in rates]).astype(object)
    for name, value in changes.items():
        frame.loc[len(frame) - 1, name] = value
    frame.to_csv(path, index=False)
    return path


def test_rates_survive_a_file(tmp_path: Path) -> None:
    assert read_rates(write_rates(tmp_path / "rates.csv", RATE, GPU)) == [RATE, GPU]
    (found,) = read_rates(write_rates(tmp_path / "rates.csv", RATE, eigh_s="", grams=""))
    assert math.isnan(found.eigh_s) and math.isnan(found.grams)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forward_s": 0}, r"rates.csv:3: forward_s is 0.0, allowed: a number above 0"),
        ({"train_s": -1}, "train_s is -1.0"),
        ({"job_s": ""}, "job_s is nan"),
        ({"fisher_s": 0}, "fisher_s is 0.0, allowed: a number above 0, or nothing"),
        ({"parameters": ""}, "parameters is nan"),
        ({"forward_s": "inf"}, "forward_s is inf"),
        ({"device": "gpu"}, "device is gpu, allowed: cpu, cuda"),
        ({"precision": "fp16"}, "precision is fp16, allowed: bf16, fp32"),
        ({"model": ""}, "model is nan, allowed: anything but nothing"),
        ({"forward_s": "fast"}, "no readable table of rates"),
        ({"machine": "here", "device": "cpu"}, r"rates.csv:3: a second row of here, cpu, net, \{\}, 32"),
    ],
)
def test_impossible_rates_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rates(write_rates(tmp_path / "rates.csv", RATE, GPU, **changes))


def test_a_file_that_holds_no_rates_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.csv .*python -m benchmarks.rates CONFIG"):
        read_rates(tmp_path / "absent.csv")
    (tmp_path / "short.csv").write_text("machine,device\nhere,cpu\n")
    with pytest.raises(DataError, match=r"short.csv .*model.*python -m benchmarks.rates CONFIG"):
        read_rates(tmp_path / "short.csv")


def test_rates_that_come_with_oneshui_are_readable() -> None:
    rates = read_rates(ROOT / "resources/rates.csv")
    assert {rate.device for rate in rates if rate.source.startswith("measured")} == {"cpu", "cuda"}
    assert all(rate.source.startswith(("measured: ", "estimate: ")) for rate in rates)


# --- text ------------------------------------------------------------------------------------------------------------


def test_text_has_totals_an_aligned_table_and_what_they_rest_on() -> None:
    found = planned(config_of(table("ssd", "mine", privacy=True)))
    lines = to_text(found).splitlines()
    jobs, hours = found["jobs"].sum(), found["hours"].sum()
    assert lines[0].startswith(f"{jobs} jobs, 3 of them trainings; {hours:.1f} core-hours; ")
    assert lines[1] == "on here"
    body = lines[3 : 3 + 4 + len(found)]  # heads, rule, rows, rule, total
    assert len({len(line) for line in body}) == 1
    assert body[-1].split()[:2] == ["total", str(jobs)]
    notes = " ".join(" ".join(lines[len(body) + 3 :]).split())
    assert "toy: 1,000 images of 100 identities; 590 to train on, 200 to validate, 200 to test with" in notes
    assert "net at 32 px in fp32, images/s: forward 100, training 10, single gradients 5" in notes
    assert "a job starts in 10.0 s with torch, in 1.0 s without" in notes
    assert "not counted: what methods of your own compute and keep (mine)" in notes


def test_gpu_hours_are_those_of_jobs_that_ask_for_one() -> None:
    found = planned(config_of(table("ssd"), device="auto"), GPU, HALF)
    gpu = found["stage"].isin(
        ["train_pretrain", "train_retrain", "precompute_artefact", "unlearn", "score_pretrain", "score_retrained",
         "score_unlearned"]
    )  # fmt: skip
    hours = found.loc[gpu, "hours"].sum(), found.loc[~gpu, "hours"].sum()
    assert f"{hours[0]:.1f} GPU-hours, and {hours[1]:.1f} core-hours of jobs without a GPU" in to_text(found)


def test_image_stores_are_read_by_every_job_that_sees_data() -> None:
    text = " ".join(to_text(planned(config_of(table("ssd", "jit")))).split())
    # 2 trainings, 1 artefact, 4 scorings of 1,000 images of 64 x 48 px: 0.06 GB
    assert "reading the image stores, 0 GB in 7 jobs" in text


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "config").glob("*.yaml")))
def test_our_configurations_can_be_planned_with_our_rates(name: str) -> None:
    config = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    check_config(config)  # fills in what methods take from others
    published = yaml.safe_load((ROOT / "resources/datasets.yaml").read_text())
    counts = {dataset: size_of(dataset, entry, published) for dataset, entry in config["datasets"].items()}
    found = plan(config, read_rates(ROOT / "resources/rates.csv"), counts=counts)
    assert found["hours"].sum() > 0 and not found.isna().any(axis=None)
