"""Traces of the forget set in a model, also in one that was destroyed."""

from pathlib import Path

import pytest
import torch
from tests.unit.stages.test_try_hyperparameters import CPU
from tests.unit.stages.test_try_hyperparameters import Run as Files

from oneshui.models import has_finite_weights, load_model, save_model
from oneshui.runs import ORIGINAL, Model, Run
from oneshui.schemas import METRICS, read_table
from oneshui.stages.trace_model import trace_model


def metrics_of(files: Files, path: Path, model: Model) -> dict[str, float]:
    output = files.path("traces.parquet")
    trace_model(
        path, files.path("model.safetensors"), files.data, output, run=Run("toy", 2, 0), model=model,
        spec={"max_reference": 60, "refit_c": 1.0}, device=CPU,
    )  # fmt: skip
    table, _ = read_table(output, METRICS)
    assert set(table["split"]) <= {"forget"} and set(table["n"]) <= {2}
    return dict(zip(table["metric"], table["value"], strict=True))


def test_the_original_model_needs_no_step_to_know_what_it_knows(tmp_path: Path) -> None:
    files = Files(tmp_path)
    found = metrics_of(files, files.path("model.safetensors"), ORIGINAL)
    depths = ("25", "50", "75", "100", "features")  # it is not trained: its last projection has a scale of 0
    assert found.keys() == {
        "relearn_steps", "held_accuracy", "relearned_accuracy", *(f"probe_{depth}_accuracy" for depth in depths)
    }  # fmt: skip
    assert found["relearn_steps"] == 0 and found["probe_100_accuracy"] == found["probe_features_accuracy"]


def test_a_model_with_finite_weights_and_no_answers_has_the_traces_that_there_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, path = Files(tmp_path), tmp_path / "destroyed.safetensors"
    checkpoint = load_model(files.path("model.safetensors"), CPU)
    checkpoint.model.fc.weight.data = torch.tensor([[1.0], [-1.0], [1.0]]) * 3e38 * torch.tensor([1.0, -1.0, 1.0, -1.0])
    checkpoint.model.layer4[0].bn2.bias.data += 1e3  # all features are large
    assert has_finite_weights(checkpoint.model)
    save_model(path, checkpoint.model, checkpoint.spec, checkpoint.metadata)
    found = metrics_of(files, path, Model("pretrain", "ssd"))
    assert {"probe_features_accuracy"} <= found.keys() and not {"relearn_steps", "relearned_accuracy"} & found.keys()
    assert "relearning: logits are NaN in" in caplog.text
