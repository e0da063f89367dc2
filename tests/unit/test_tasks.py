"""Losses and targets of the two tasks."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from oneshui.errors import ConfigError
from oneshui.tasks import Task

CLASSES = Task("classification", ("a", "b", "c"))
ATTRIBUTES = Task("multilabel", ("x", "y"))


def test_classification_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, math.log(2), math.log(5)]])
    wanted = [math.log(3), math.log(8 / 2)]
    assert CLASSES.losses(logits, torch.tensor([2, 1])).tolist() == pytest.approx(wanted, rel=1e-6)


def test_multilabel_loss_is_the_mean_over_attributes() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(3), math.log(3)]], dtype=torch.float64)
    wanted = [(math.log(2) + math.log(4 / 3)) / 2, (math.log(4 / 3) + math.log(4)) / 2]
    found = ATTRIBUTES.losses(logits, torch.tensor([[1, 1], [1, 0]]))
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(wanted, rel=1e-12)


def test_loss_of_a_sure_and_wrong_model_is_finite() -> None:
    assert ATTRIBUTES.losses(torch.tensor([[200.0, -200.0]]), torch.tensor([[0, 1]])).tolist() == [200.0]


def test_targets() -> None:
    assert CLASSES.target_vectors(torch.tensor([2, 0])).tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    assert ATTRIBUTES.target_vectors(torch.tensor([[1, 0]])).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("labels", [np.array([1, 0], dtype=np.int16), np.array([[1, 0]], dtype=np.int8)])
def test_labels_of_a_table_become_int64(labels: Any) -> None:
    found = CLASSES.label_tensor(labels)
    assert found.dtype == torch.int64 and found.tolist() == labels.tolist()


def test_task_from_metadata() -> None:
    assert Task.from_meta({"task": "multilabel", "classes": ["x", "y"], "n": 5}) == ATTRIBUTES
    assert ATTRIBUTES.n_outputs == 2


def test_impossible_task_is_an_error() -> None:
    with pytest.raises(ConfigError, match="task is 'regression', allowed: classification, multilabel"):
        Task("regression", ("a",))
    with pytest.raises(ConfigError, match="at least one class name"):
        Task("multilabel", ())
