"""The linear probe: what a new classifier finds in features."""

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from oneshui.errors import DataError
from oneshui.metrics import probe
from oneshui.metrics.accuracy import accuracy
from oneshui.metrics.probe import probe_logits

N_CLASSES = 4


def toy(seed: int = 0, knows_forget: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return features and labels of retain and forget images; the latter lie with their class if it was learned."""
    draw = np.random.default_rng(seed)
    centres = 4 * draw.standard_normal((N_CLASSES, 16))
    labels, forget_labels = draw.integers(0, N_CLASSES, 400), draw.integers(0, N_CLASSES, 200)
    retain = centres[labels] + draw.standard_normal((400, 16))
    guessed = forget_labels if knows_forget else draw.integers(0, N_CLASSES, 200)
    return retain, labels, centres[guessed] + draw.standard_normal((200, 16)), forget_labels


def test_features_that_know_the_forget_images_give_them_away() -> None:
    retain, labels, forget, answers = toy()
    found = probe_logits(retain, labels, forget, n_outputs=N_CLASSES, c=1.0)
    assert accuracy(found, answers) > 0.95
    retain, labels, forget, answers = toy(knows_forget=False)
    found = probe_logits(retain, labels, forget, n_outputs=N_CLASSES, c=1.0)
    assert accuracy(found, answers) < 0.4


def test_several_attributes_are_one_regression_each() -> None:
    draw = np.random.default_rng(0)
    fit, asked = draw.standard_normal((300, 8)), draw.standard_normal((50, 8))
    labels = (fit @ draw.standard_normal((8, 3)) > 0).astype(np.int64)
    labels[:, 1] = 1  # one value only
    found = probe_logits(fit, labels, asked, n_outputs=3, c=0.5)
    scaled = (asked - fit.mean(0)) / fit.std(0)
    for attribute in (0, 2):
        alone = LogisticRegression(C=0.5, max_iter=5000, tol=1e-8).fit((fit - fit.mean(0)) / fit.std(0),
                                                                       labels[:, attribute])  # fmt: skip
        np.testing.assert_allclose(found[:, attribute], alone.decision_function(scaled), rtol=1e-2, atol=1e-2)
    assert (found[:, 1] == 0).all()


def test_scale_and_constant_features_do_not_matter() -> None:
    retain, labels, forget, _ = toy()
    plain = probe_logits(retain, labels, forget, n_outputs=N_CLASSES, c=1.0)
    changed = probe_logits(
        np.hstack([1000 * retain + 5, np.ones((400, 1))]), labels, np.hstack([1000 * forget + 5, np.ones((200, 1))]),
        n_outputs=N_CLASSES, c=1.0,
    )  # fmt: skip
    np.testing.assert_allclose(changed, plain, rtol=1e-2, atol=1e-2)


def test_a_unit_that_hardly_fires_while_fitting_drowns_no_other() -> None:
    retain, labels, forget, answers = toy()
    rare, fires = np.zeros((400, 1)), np.ones((200, 1))
    rare[0] = 6e-8  # float16's smallest number
    found = probe_logits(np.hstack([retain, rare]), labels, np.hstack([forget, fires]), n_outputs=N_CLASSES, c=1.0)
    assert accuracy(found, answers) > 0.95


def test_classes_that_nobody_has_are_never_answered() -> None:
    retain, labels, forget, _ = toy()
    for kept in ((1, 3), (0, 1, 3)):
        chosen = np.isin(labels, kept)
        found = probe_logits(retain[chosen], labels[chosen], forget, n_outputs=6, c=1.0)
        assert found.shape == (200, 6)
        assert set(found.argmax(1)) == set(kept)
        assert np.isneginf(found[:, [2, 4, 5]]).all()


def test_a_regression_that_does_not_converge_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probe, "_MAX_ITERATIONS", 2)
    retain, labels, forget, _ = toy()
    with caplog.at_level(logging.WARNING):
        probe_logits(retain, labels, forget, n_outputs=N_CLASSES, c=1.0)
    assert "stopped after 2 steps" in caplog.text


def test_what_cannot_be_fitted_is_one_error() -> None:
    retain, labels, forget, _ = toy()
    with pytest.raises(DataError, match="all 400 images to train on have class 2; needed: two classes or more"):
        probe_logits(retain, np.full(400, 2), forget, n_outputs=N_CLASSES, c=1.0)
    broken = retain.copy()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="features of 1 images are not finite"):
        probe_logits(broken, labels, forget, n_outputs=N_CLASSES, c=1.0)
    for fit, asked in ((retain[:0], forget), (retain[:7], forget), (retain, forget[:, :3])):
        with pytest.raises(DataError, match=r"needed: \(N, D\) with N labels"):
            probe_logits(fit, labels[: len(fit) and 400], asked, n_outputs=N_CLASSES, c=1.0)
