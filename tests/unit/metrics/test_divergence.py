"""KL divergence between the answers of two models."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy

from oneshui.errors import DataError
from oneshui.metrics.divergence import mean_kl


def answers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(50, 4)) * 5


def test_of_classes_it_is_the_mean_of_the_relative_entropies() -> None:
    p, q = answers(0), answers(1)
    wanted = np.mean([entropy(one, other) for one, other in zip(softmax(p, 1), softmax(q, 1), strict=True)])
    assert mean_kl(p, q, task="classification") == pytest.approx(wanted)
    assert mean_kl(p, p + 7.0, task="classification") == pytest.approx(0.0, abs=1e-12)


def test_of_attributes_it_is_summed_over_them() -> None:
    p, q = answers(0), answers(1)
    pairs = zip(expit(p).ravel(), expit(q).ravel(), strict=True)
    wanted = sum(entropy([one, 1 - one], [other, 1 - other]) for one, other in pairs) / 50
    assert mean_kl(p, q, task="multilabel") == pytest.approx(wanted)
    assert mean_kl(p, p, task="multilabel") == 0.0


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_certain_answer_is_no_overflow(task: str) -> None:
    far = np.array([[900.0, -900.0]], dtype=np.float16)
    assert np.isfinite(mean_kl(far, -far, task=task))


def test_answers_to_other_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"logits have the shapes \(50, 4\) and \(49, 4\), needed: the same"):
        mean_kl(answers(0), answers(1)[:49], task="classification")
