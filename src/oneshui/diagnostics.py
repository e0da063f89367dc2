"""What can be wrong with an unlearned model: the one definition of saturated and of diverged.

A relative step is ||theta_u - theta|| / ||theta|| over all parameters.
"""

import math

#: relative step that float32 cannot resolve
FLOAT32_STEP = 1e-7
#: share of the simulated requests' typical step below which a real request forgets nothing
SIMULATED_SHARE = 0.01
#: loss of accuracy or mAP on validation images after a simulated request, a fraction, beyond which a model has diverged
MOST_LOST = 0.1
#: steps of training that show whether something is relearned faster than it is learned
RELEARN_STEPS = 40


def is_saturated(relative_step: float, simulated_step: float = 0.0) -> bool:
    """Tell whether a step was so small that nothing was forgotten.

    Args:
        relative_step: of the request, >= 0. NaN is not saturated: it has diverged.
        simulated_step: median relative step of the simulated requests that the method was trained on; 0 if unknown.
    """
    return relative_step < max(FLOAT32_STEP, SIMULATED_SHARE * simulated_step)


def has_diverged(*, finite: bool = True, relative_step: float = 0.0, lost: float = 0.0) -> bool:
    """Tell whether unlearning destroyed a model.

    Args:
        finite: whether all weights and answers are finite.
        relative_step: of the request; a step above 1 is longer than the weights themselves.
        lost: accuracy or mAP on validation images that a simulated request cost, a fraction.
    """
    return not finite or not relative_step <= 1 or math.isnan(lost) or lost > MOST_LOST
