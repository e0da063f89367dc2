"""The stages on both sides of the discard line, from files to files, and what they refuse."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from oneshui.data.support import read_request
from oneshui.errors import ArtefactError, CheckpointError, ConfigError, DataError
from oneshui.files import sha256_file
from oneshui.methods import METHODS, artefact_spec, make_method
from oneshui.methods.base import Artefact, Unlearned, unlearn_in_turn, without
from oneshui.methods.scrub import SCRUB
from oneshui.methods.ssd import SSD
from oneshui.metrics.queries import query_rows
from oneshui.metrics.roles import metric_rows
from oneshui.models import ModelSpec, build_model, load_model, save_model
from oneshui.runs import DataFiles, Model
from oneshui.runs import Run as Which
from oneshui.schemas import FEATURES, INDEX, METRICS, REQUEST, SCORES, SPLITS, read_table, write_table
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet, Support
from oneshui.stages.export_request import export_request
from oneshui.stages.images import input_of
from oneshui.stages.precompute_artefact import precompute_artefact
from oneshui.stages.probe_model import probe_model
from oneshui.stages.score_model import score_model
from oneshui.stages.serve_request import serve_request
from oneshui.stages.split_identities import split_identities
from oneshui.stages.unlearn_with_data import unlearn_with_data
from oneshui.tasks import Task

CPU = torch.device("cpu")
TASK = Task("classification", ("a", "b", "c"))
QUERIES: dict[str, Any] = {"views": 2, "crop_scale": [0.5, 1.0], "max_reference": 30}
SSD_SPEC = {"kind": "ssd", "selection": 1.0, "dampening": 0.5, "fisher": "image", "batch_size": 16, "micro_batch": 8}
JIT_SPEC = {"kind": "jit", "lr": 1e-2, "noise_std": 0.5, "n_samples": 2, "batch_size": 16}
META_SPEC = {
    "kind": "metaunlearn", "inner_lr": 0.1, "lr": 1e-3, "epochs": 1, "simulated_n": 3, "batch_size": 8,
    "micro_batch": 8, "hidden": 8, "dropout": 0.0, "inputs": ["logits", "features", "target", "identity"],
    "outer_loss": "equation_6", "terms": "both", "accuracy_weight": True, "distance": "smooth_l1",
    "val_gradient": False, "frozen": [], "jvp": "exact",
}  # fmt: skip


class Run:
    """The files of a run: 24 identities with four images of 16 px, a model and a request."""

    def __init__(self, folder: Path, task: Task = TASK) -> None:
        self.folder, self.task, self.which, self.made = folder, task, Which("toy", 2, 0), Model("pretrain", "mine")
        self.index, self.images = folder / "index.parquet", folder / "images.npy"
        self.splits, self.request = folder / "splits.parquet", folder / "request.parquet"
        self.data = DataFiles(self.index, self.images, self.splits)
        self.model, self.artefact = folder / "pretrain.safetensors", folder / "artefact.safetensors"
        draw = np.random.default_rng(0)
        frame = pd.DataFrame({"image_id": range(96), "path": "x.png", "identity": np.arange(96) // 4})
        label: Any = draw.integers(0, 2, 96) if task.kind == "classification" else list(draw.integers(0, 2, (96, 3)))
        frame = frame.assign(identity_name=frame["identity"].astype(str), label=label, width=16, height=16)
        meta = {"task": task.kind, "classes": list(task.classes), "dataset": "toy"}
        write_table(self.index, frame.assign(duplicate_group=range(96)), INDEX, meta)
        np.save(self.images, draw.integers(0, 256, (96, 3, 16, 16), dtype=np.uint8))
        spec = {"train": 0.6, "val": 0.2, "n_ranked": 3, "min_images_first": 4, "min_images": 2, "dedup": False}
        split_identities(self.index, self.splits, run=self.which, spec=spec)
        export_request(self.data, self.request, run=self.which, wrong_photos=False)
        self.write_model()

    def write_model(self, seed: int = 0, **metadata: Any) -> None:
        spec = ModelSpec("resnet10t", self.task, 16, 0.5, 0.5, {"channels": (4, 4, 4, 4), "stem_width": 4})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_model(spec)
        content = read_table(self.splits, SPLITS)[1]["content"]
        save_model(self.model, model, spec, {"splits": content, "training": {"history": []}, **metadata})

    def precompute(self, spec: dict[str, Any]) -> None:
        precompute_artefact(
            self.model, self.data, self.artefact, run=self.which, model=self.made, spec=spec, device=CPU
        )  # fmt: skip

    def unlearn(self, spec: dict[str, Any], artefact: bool = True) -> Path:
        output = self.folder / "unlearned.safetensors"
        serve_request(
            str(self.model), str(self.request), str(self.artefact) if artefact else None, str(output),
            run=asdict(self.which), model=str(self.made), spec=spec, gpus=0, threads=1, isolation="none",
        )  # fmt: skip
        return output

    def score(self, queries: dict[str, Any] = QUERIES) -> None:
        outputs = (self.folder / "scores.parquet", self.folder / "features.parquet")
        score_model(self.model, self.data, *outputs, run=self.which, queries=queries, device=CPU)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def weights(path: Path) -> dict[str, Tensor]:
    return load_model(path, CPU).model.state_dict()


@pytest.mark.parametrize("spec", [SSD_SPEC, META_SPEC], ids=["ssd", "metaunlearn"])
def test_unlearning_from_files_to_a_file(run: Run, spec: dict[str, Any]) -> None:
    run.precompute(spec)
    before = run.model.read_bytes()
    metadata = load_model(run.unlearn(spec), CPU).metadata
    assert run.model.read_bytes() == before
    assert (metadata["method"], metadata["origin"], metadata["dataset"]) == ("mine", "pretrain", "toy")
    assert (metadata["n"], metadata["seed"], metadata["spec"]) == (2, 0, spec)
    assert metadata["model"] == sha256_file(run.model)
    assert metadata["request"] == sha256_file(run.request)
    assert metadata["splits"] == read_table(run.splits, SPLITS)[1]["content"]
    assert metadata["health"]["relative_step"] > 0
    assert metadata["precompute_seconds"] > 0 and metadata["seconds"] > 0
    assert 0.5 < metadata["artefact_mb"] / (run.artefact.stat().st_size / 1e6) < 1
    assert 0 <= metadata["peak_mb"] < 1000  # 0 where so small a model fits into memory that was freed before
    start, end = weights(run.model), weights(run.folder / "unlearned.safetensors")
    assert any(not torch.equal(value, start[name]) for name, value in end.items())


@pytest.mark.parametrize("spec", [SSD_SPEC, META_SPEC], ids=["ssd", "metaunlearn"])
def test_people_in_turn_are_served_from_what_the_last_one_left(run: Run, spec: dict[str, Any]) -> None:
    run.precompute(spec)
    together = weights(run.unlearn(spec))
    metadata = load_model(run.unlearn({**spec, "in_turn": 1}), CPU).metadata
    found = weights(run.folder / "unlearned.safetensors")
    assert metadata["spec"]["in_turn"] == 1
    method, model = make_method(spec), load_model(run.model, CPU).model
    artefact, _ = Artefact.load(run.artefact, CPU)
    spec_of_model = load_model(run.model, CPU).spec
    asked = read_request(str(run.request), TASK, input_of(spec_of_model), CPU, stored_px=None)
    for row in (0, 1):
        part = Support(asked.images[[row]], asked.labels[[row]], asked.identities[[row]], TASK)
        model = method.unlearn(model, part, artefact, seed=run.which.method_seed).model
        artefact = without(method, artefact, part.identities)
    assert all(torch.equal(tensor, found[name]) for name, tensor in model.state_dict().items())
    assert any(not torch.equal(tensor, together[name]) for name, tensor in found.items())


def test_a_request_in_turn_is_saturated_where_every_part_is() -> None:
    class Moves:
        def unlearn(self, model: Any, support: Support, artefact: Any, *, seed: int) -> Unlearned:
            known = float((support.identities < limit).sum())
            return Unlearned(
                model, {"relative_step": 1e-3 * known, "unknown_identities": 1 - known, "loss": -1 - known}
            )

    asked = Support(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64), torch.arange(3), TASK)
    for limit, saturated in ((3, False), (1, False), (0, True)):
        served = unlearn_in_turn(cast(Any, Moves()), nn.Linear(1, 1), asked, None, size=1, seed=0)
        assert served.checked().get("saturated", False) == saturated
        assert served.diagnostics["unknown_identities"] == 3 - limit
        assert served.diagnostics["relative_step"] == (1e-3 if limit else 0)
        assert served.diagnostics["loss"] == (-2 if limit == 3 else -1)


def test_data_may_be_gone_once_the_artefact_is_made(run: Run) -> None:
    run.precompute(META_SPEC)
    wanted = weights(run.unlearn(META_SPEC))
    for path in (run.index, run.images, run.splits):
        path.unlink()
    found = weights(run.unlearn(META_SPEC))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_artefact_is_of_the_training_set_without_the_photos(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def precompute(self: SSD, model: Any, train: Any, val: Any, *, seed: int) -> Artefact:
        seen.update(train=train, val=val, seed=seed)
        return Artefact({"x": torch.zeros(1)})

    monkeypatch.setattr(SSD, "precompute", precompute)
    run.precompute(SSD_SPEC)
    splits, _ = read_table(run.splits, SPLITS)
    parts = {
        part: splits.loc[(splits["role"] == part) & ~splits["is_support"], "image_id"] for part in ("train", "val")
    }
    assert {part: sorted(seen[part].image_ids.tolist()) for part in parts} == {p: list(i) for p, i in parts.items()}
    assert seen["seed"] == seed_of("method", "toy", 2, 0)
    header = Artefact.load(run.artefact, CPU)[1]
    assert (header["model"], header["spec"]) == (sha256_file(run.model), artefact_spec(SSD_SPEC))
    assert artefact_spec(SSD_SPEC) == {"kind": "ssd", "fisher": "image", "batch_size": 16}


def test_artefact_of_another_model_is_an_error(run: Run) -> None:
    run.precompute(SSD_SPEC)
    run.write_model(seed=1)
    with pytest.raises(ArtefactError, match=r"artefact\.safetensors was made for another model than .*pretrain"):
        run.unlearn(SSD_SPEC)


def test_artefact_of_other_hyper_parameters_is_an_error_unless_it_does_not_depend_on_them(run: Run) -> None:
    run.precompute(SSD_SPEC)
    with pytest.raises(ArtefactError, match=r"other hyper-parameters \(fisher: image -> batch\)"):
        run.unlearn({**SSD_SPEC, "fisher": "batch"})
    run.unlearn({**SSD_SPEC, "dampening": 0.25})


def test_artefact_of_another_method_is_an_error(run: Run) -> None:
    run.precompute(SSD_SPEC)
    with pytest.raises(ArtefactError, match="is an artefact of ssd, not of metaunlearn"):
        run.unlearn(META_SPEC)


def test_missing_artefact_is_an_error(run: Run) -> None:
    with pytest.raises(ArtefactError, match="precompute_artefact again"):
        run.unlearn(SSD_SPEC)
    with pytest.raises(ArtefactError, match="ssd needs its artefact"):
        run.unlearn(SSD_SPEC, artefact=False)


def test_damaged_artefact_is_an_error(run: Run) -> None:
    run.precompute(SSD_SPEC)
    run.artefact.write_bytes(run.artefact.read_bytes()[:-8])
    with pytest.raises(ArtefactError, match="precompute_artefact again"):
        run.unlearn(SSD_SPEC)
    assert not (run.folder / "unlearned.safetensors").exists()


def test_model_of_other_splits_is_an_error(run: Run) -> None:
    run.write_model(splits="0123456789abcdef")
    with pytest.raises(CheckpointError, match="was trained on other splits"):
        run.precompute(SSD_SPEC)
    assert not run.artefact.exists()


def test_request_of_another_split_is_an_error(run: Run) -> None:
    run.precompute(SSD_SPEC)
    spec = {"train": 0.6, "val": 0.2, "n_ranked": 3, "min_images_first": 4, "min_images": 2, "dedup": False}
    other = run.which.with_seed(1)
    split_identities(run.index, run.splits, run=other, spec=spec)
    export_request(run.data, run.request, run=other, wrong_photos=False)
    with pytest.raises(DataError, match=r"request\.parquet was exported from another split than .*pretrain"):
        run.unlearn(SSD_SPEC)
    assert not (run.folder / "unlearned.safetensors").exists()


def test_request_that_names_no_split_is_taken(run: Run) -> None:
    """A person may hand in photos of their own."""
    run.precompute(SSD_SPEC)
    frame, meta = read_table(run.request, REQUEST)
    assert meta.pop("splits") == read_table(run.splits, SPLITS)[1]["content"]
    write_table(run.request, frame, REQUEST, meta)
    assert run.unlearn(SSD_SPEC).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kind": "forget_everything"},
            f"method kind 'forget_everything' is unknown, allowed: {', '.join(METHODS)}, or your own module:Class",
        ),
        ({"kind": None}, "method kind None is unknown"),
        ({"alpha": 1.0}, "ssd: unknown key alpha; allowed: selection, dampening"),
        ({"selection": -1.0}, "ssd: selection = -1.0"),
    ],
)
def test_unknown_kind_or_parameter_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method({**SSD_SPEC, **change})


def test_missing_parameter_is_an_error() -> None:
    with pytest.raises(ConfigError, match="ssd: missing key fisher"):
        make_method({key: value for key, value in SSD_SPEC.items() if key != "fisher"})


def test_revision_is_no_parameter() -> None:
    assert make_method({**SSD_SPEC, "revision": 7}) == make_method(SSD_SPEC)


def test_spec_stays_as_it_is() -> None:
    spec = {**META_SPEC, "revision": 1}
    method = make_method(spec)
    assert spec == {**META_SPEC, "revision": 1}
    assert method.inputs == ("logits", "features", "target", "identity")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "other", [Task("classification", ("a", "b", "z")), Task("multilabel", ("a", "b", "c"))], ids=["classes", "kind"]
)
def test_request_of_another_task_is_an_error(run: Run, tmp_path: Path, other: Task) -> None:
    run.precompute(SSD_SPEC)
    (tmp_path / "other").mkdir()
    run.request = Run(tmp_path / "other", other).request
    with pytest.raises(DataError, match=f"is a {other.kind} request with 3 classes"):
        run.unlearn(SSD_SPEC)


def test_photo_of_another_size_is_an_error(run: Run) -> None:
    run.write_model(spec={"dataset": {"stored_px": [16, 12]}})
    run.precompute(SSD_SPEC)
    with pytest.raises(DataError, match=r"row 0: the photo has 16 x 16 px .* trained on images of 16 x 12 px"):
        run.unlearn(SSD_SPEC)
    run.write_model(spec={"dataset": {"stored_px": [16, 16]}})
    run.precompute(SSD_SPEC)
    assert load_model(run.unlearn(SSD_SPEC), CPU).metadata["stored_px"] == [16, 16]


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("classification", 3), ("classification", -1), ("multilabel", [0, 1, 5]), ("multilabel", [0, -1, 1]),
        ("multilabel", [0, 1]),
    ],
)  # fmt: skip
def test_a_label_that_the_model_does_not_have_is_an_error(tmp_path: Path, kind: str, label: Any) -> None:
    run = Run(tmp_path, Task(kind, ("a", "b", "c")))
    frame, meta = read_table(run.request, REQUEST)
    labels = frame["label"].to_list()
    write_table(run.request, frame.assign(label=[labels[0], label]), REQUEST, meta)
    with pytest.raises(DataError, match=r"row 1: the label is .*, allowed: "):
        run.unlearn(JIT_SPEC, artefact=False)


def test_a_request_that_does_not_name_its_classes_is_an_error(run: Run) -> None:
    frame, meta = read_table(run.request, REQUEST)
    write_table(run.request, frame, REQUEST, {"task": meta["task"]})
    with pytest.raises(DataError, match="the metadata of a request table need classes, but have task"):
        run.unlearn(JIT_SPEC, artefact=False)


def test_a_model_that_is_not_finite_is_refused_and_one_that_was_destroyed_is_marked(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_model(run.unlearn({**JIT_SPEC, "lr": 1e30}, artefact=False), CPU)
    assert found.metadata["health"]["blown_up"] is True and "the model has diverged" in caplog.text
    broken = load_model(run.model, CPU)
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    save_model(run.model, broken.model, broken.spec, broken.metadata)
    with pytest.raises(CheckpointError, match="has weights that are not finite"):
        run.unlearn(JIT_SPEC, artefact=False)


def test_a_method_of_ones_own_must_be_a_dataclass() -> None:
    with pytest.raises(ConfigError, match=r"'json:JSONDecoder' is no dataclass"):
        make_method({"kind": "json:JSONDecoder", "needs": "nothing"})


def test_request_without_a_photo_is_an_error(run: Run) -> None:
    run.precompute(SSD_SPEC)
    frame, meta = read_table(run.request, REQUEST)
    write_table(run.request, frame.iloc[:0], REQUEST, meta)
    with pytest.raises(DataError, match="holds no photo"):
        run.unlearn(SSD_SPEC)


def test_artefact_of_the_other_origin_is_an_error(run: Run) -> None:
    run.precompute(SSD_SPEC)
    run.write_model(seed=0, role="retrain")  # the same weights, another file
    with pytest.raises(ArtefactError, match="made for another model"):
        run.unlearn(SSD_SPEC)


def test_reference_method_sees_the_forget_and_the_retain_images_and_no_photo(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def unlearn(self: SCRUB, model: Any, forget: Any, retain: Any, *, seed: int, rebuild: Any) -> Unlearned:
        seen.update(forget=forget, retain=retain, seed=seed, fresh=rebuild(3))
        return Unlearned(model, {"relative_step": 0.5})

    monkeypatch.setattr(SCRUB, "unlearn", unlearn)
    spec = {
        "kind": "scrub", "lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0, "epochs": 1, "forget_epochs": 1,
        "alpha": 0.1, "gamma": 0.9, "temperature": 4.0, "clip_norm": 1.0, "forget_batch_size": 8,
        "retain_batch_size": 8, "crop_scale": [], "kl": "task",
    }  # fmt: skip
    output = run.folder / "unlearned.safetensors"
    unlearn_with_data(run.model, run.data, output, run=run.which, model=run.made, spec=spec, device=CPU)
    splits, _ = read_table(run.splits, SPLITS)
    train = splits[(splits["role"] == "train") & ~splits["is_support"]]
    asked = train["request_rank"].fillna(99) < 2
    assert sorted(seen["forget"].image_ids.tolist()) == train.loc[asked, "image_id"].tolist()
    assert sorted(seen["retain"].image_ids.tolist()) == train.loc[~asked, "image_id"].tolist()
    assert seen["seed"] == seed_of("method", "toy", 2, 0)
    assert not torch.equal(seen["fresh"].fc.weight, load_model(run.model, CPU).model.fc.weight)
    metadata = load_model(output, CPU).metadata
    assert metadata["isolation"] == "none" and metadata["seconds"] >= 0
    assert metadata["health"] == {"relative_step": 0.5}


def test_scores_carry_the_models_metadata(run: Run) -> None:
    run.write_model(method="mine", health={"saturated": False})
    run.score()
    frame, meta = read_table(run.folder / "scores.parquet", SCORES)
    assert frame.loc[frame["view"] == 0, "image_id"].tolist() == list(range(96))
    content = read_table(run.splits, SPLITS)[1]["content"]
    assert meta["model"] == {"splits": content, "method": "mine", "health": {"saturated": False}}
    assert (meta["task"], meta["classes"]) == ("classification", ["a", "b", "c"])


def test_views_and_features_are_of_the_images_that_attacks_ask_about(run: Run) -> None:
    run.score()
    frame, meta = read_table(run.folder / "scores.parquet", SCORES)
    features, features_meta = read_table(run.folder / "features.parquet", FEATURES)
    splits, _ = read_table(run.splits, SPLITS)
    train = (splits["role"] == "train") & ~splits["is_support"]
    ranked, test = train & splits["request_rank"].notna(), splits["role"] == "test"
    asked = set(splits.loc[ranked | test, "image_id"])
    rest = set(splits.loc[(train & ~ranked) | (splits["role"] == "val"), "image_id"])
    for view in (1, 2):
        seen = set(frame.loc[frame["view"] == view, "image_id"])
        assert asked < seen and len(seen - asked) == 30 and seen - asked < rest
    assert frame.loc[frame["view"] > 0, "logits"].isna().all()
    fit = set(features["image_id"]) - asked
    support = set(splits.loc[splits["is_support"], "image_id"])
    assert asked | support < set(features["image_id"])
    assert fit - support == (seen - asked) & set(splits.loc[train, "image_id"])
    assert meta["queries"] == features_meta["queries"] == QUERIES


def refit_values(run: Run) -> dict[tuple[str, str], float]:
    spec = {"max_reference": QUERIES["max_reference"], "refit_c": 1.0}
    output = run.folder / "refit.parquet"
    probe_model(
        run.folder / "features.parquet", run.splits, run.index, output, run=run.which, model=run.made, spec=spec
    )  # fmt: skip
    frame, _ = read_table(run.folder / "refit.parquet", METRICS)
    return dict(zip(zip(frame["split"], frame["metric"], strict=True), frame["value"], strict=True))


def test_refit_sees_through_an_edit_of_the_last_layer(run: Run) -> None:
    """An edited classifier is found to know what the pretrained model knows; features that know nothing say nothing."""
    label = read_table(run.index, INDEX)[0]["label"].to_numpy()
    noise = np.random.default_rng(3).integers(0, 20, (96, 3, 16, 16))
    np.save(run.images, (220 * label[:, None, None, None] + noise).astype(np.uint8))  # black or white: any net sees it
    run.score()
    pretrained, before = refit_values(run), read_table(run.folder / "scores.parquet", SCORES)[0]
    checkpoint = load_model(run.model, CPU)
    metadata = {key: value for key, value in checkpoint.metadata.items() if key != "model_spec"}
    with torch.no_grad():
        checkpoint.model.fc.weight.neg_()
    save_model(run.model, checkpoint.model, checkpoint.spec, metadata)
    run.score()
    after = read_table(run.folder / "scores.parquet", SCORES)[0]
    assert refit_values(run) == pretrained
    assert (before["loss"] - after["loss"]).abs().median() > 1e-3  # its own answers are others
    with torch.no_grad():
        for parameter in checkpoint.model.layer4.parameters():
            parameter.zero_()
    save_model(run.model, checkpoint.model, checkpoint.spec, metadata)
    run.score()
    splits, labels = read_table(run.splits, SPLITS)[0], read_table(run.index, INDEX)[0]["label"]
    rows = query_rows(splits, dataset="toy", seed=0, max_reference=30)
    guess = labels[rows["fit"]].mode()[0]
    emptied = refit_values(run)
    for split in ("forget", "test"):
        assert emptied[split, "refit_accuracy"] == (labels[metric_rows(splits, 2)[split]] == guess).mean()
    assert emptied != pretrained


def test_a_models_scores_depend_on_views_and_image_alone(run: Run) -> None:
    """Not on how many views or images are asked for beside."""
    run.score()
    many = read_table(run.folder / "scores.parquet", SCORES)[0]
    run.score({**QUERIES, "views": 1, "max_reference": 5})
    few = read_table(run.folder / "scores.parquet", SCORES)[0]
    both = few.merge(many, on=["image_id", "view"])
    assert len(both) == len(few) < len(many)
    np.testing.assert_allclose(both["loss_x"], both["loss_y"], rtol=1e-5)
    first, second = (many[many["view"] == view].set_index("image_id")["loss"] for view in (1, 2))
    assert (first - second).abs().median() > 1e-4


def test_a_retrained_models_artefact_is_made_from_what_it_was_trained_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, ImageSet] = {}

    class Watching:
        def precompute(self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int) -> Artefact:
            seen["train"] = train
            return Artefact({"x": torch.zeros(1)}, {})

    monkeypatch.setattr("oneshui.stages.precompute_artefact.make_method", lambda spec: Watching())
    splits, _ = read_table(run.splits, SPLITS)
    train = splits[(splits["role"] == "train") & ~splits["is_support"]]
    for n, wanted in ((None, train), (2, train[train["request_rank"].fillna(99) >= 2])):
        run.write_model(n=n)
        run.precompute(SSD_SPEC)
        assert sorted(seen["train"].image_ids.tolist()) == sorted(wanted["image_id"])


@pytest.mark.parametrize(
    "meta",
    [{"classes": ["a", "b", "z"]}, {"classes": ["b", "a", "c"]}, {"classes": ["a", "b"]}],
    ids=["renamed", "order", "fewer"],
)
def test_model_of_other_classes_is_not_scored(run: Run, meta: dict[str, Any]) -> None:
    frame, old = read_table(run.index, INDEX)
    write_table(run.index, frame, INDEX, {**old, **meta})
    with pytest.raises(CheckpointError, match=r"pretrain\.safetensors predicts other classes than .*index\.parquet"):
        run.score()
    assert not (run.folder / "scores.parquet").exists()


def test_store_of_another_index_is_an_error(run: Run) -> None:
    np.save(run.images, np.load(run.images)[:-1])
    with pytest.raises(DataError, match=r"images\.npy holds 95 images, .*index\.parquet lists 96"):
        run.score()
