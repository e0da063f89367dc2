"""Loops never read a number back per batch: on a GPU the host would wait there, and the GPU for the host afterwards.

Shown without a GPU: the number of reads must not depend on the number of batches.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.methods.test_metaunlearn import METHOD, TASK, make_set
from tests.unit.test_training import SPEC, TRAIN, VAL
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from oneshui import scoring
from oneshui.methods import outer
from oneshui.methods.jit import JiT
from oneshui.methods.metaloss import Backbone, SupportBatch
from oneshui.models import ModelSpec, build_model
from oneshui.resume import NEVER
from oneshui.sets import Support
from oneshui.training import Trainer


class Reads(TorchDispatchMode):
    """Counts the numbers that Python reads out of tensors: float(), .item(), bool()."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_reads_are_counted() -> None:
    with Reads() as reads:
        float(torch.ones(2).sum())
        bool(torch.ones(2).isfinite().all())
        torch.ones(2).sum() + 1
    assert reads.n == 2


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(64, 3))


def resnet() -> nn.Module:
    return build_model(ModelSpec("resnet10t", TASK, 32, 0.5, 0.5, {"channels": (8, 8, 8, 8), "stem_width": 8}))


@pytest.mark.parametrize("terms", ["both", "second"])
@pytest.mark.parametrize("jvp", ["exact", "finite_difference"])
def test_a_simulated_request(terms: str, jvp: str) -> None:
    net, train, val = resnet(), make_set([0, 1, 2, 3] * 4, 0), make_set([4] * 6, 1)
    counts = []
    for micro_batch in (1, 64):
        method = dataclasses.replace(METHOD, micro_batch=micro_batch, terms=terms, jvp=jvp, val_gradient=True)
        backbone, rows = Backbone(net), torch.arange(4)
        meta_loss = method._new_meta_loss(backbone, train, 4, 0)
        support = SupportBatch(train.images(rows), train.task.target_vectors(train.labels[rows]), rows)
        reference = outer.validation_reference(net, val, 64)
        draw = np.random.default_rng(0)
        with Reads() as reads:
            step = method.inner_step(backbone, meta_loss, support)
            found = outer.Eq6(method, backbone, train.subset(torch.arange(4, 12)), val, reference, draw)(step.theta)
            method.accumulate_meta_gradient(backbone, support, step, found.gradient)
        counts.append(reads.n)
    assert counts[0] == counts[1] <= 2  # the derivative's two weights, on the CPU


def test_a_simulated_request_of_scrub() -> None:
    net, train = resnet(), make_set([0, 1, 2, 3] * 4, 0)
    method = dataclasses.replace(METHOD, micro_batch=1, outer_loss="scrub")
    backbone = Backbone(net)
    forget, retain = train.subset(torch.arange(8)), train.subset(torch.arange(8, 16))
    with Reads() as reads:
        outer.ScrubOuter(method, backbone, forget, retain, np.random.default_rng(0))(backbone.theta)
    assert reads.n == 0


def test_jit() -> None:
    support = Support(TRAIN.images(torch.arange(8)), TRAIN.labels[:8], torch.arange(8), TRAIN.task)
    counts = []
    for batch_size in (1, 8):
        with Reads() as reads:
            JiT(lr=1e-3, noise_std=0.5, n_samples=2, batch_size=batch_size).unlearn(small_net(), support, None, seed=0)
        counts.append(reads.n)
    assert counts[0] == counts[1] <= 2


def test_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for batch in (2, 20):
        monkeypatch.setattr(scoring, "_BATCH", batch)
        with Reads() as reads:
            assert len(scoring.score_images(small_net(), TRAIN)) == len(TRAIN)
        counts.append(reads.n)
    assert counts == [0, 0]


def test_an_epoch_of_training_reads_its_loss_only() -> None:
    spec = dataclasses.replace(SPEC, batch_size=2)
    trainer = Trainer(small_net(), spec, TRAIN, VAL, stream=("test",), resume=NEVER)
    with Reads() as reads:
        trainer._train_epoch(0)
    assert reads.n == 1
