"""JiT: make the model's answer to a support photo insensitive to noise (Foster et al. 2024)."""

import copy
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from oneshui.methods import params
from oneshui.methods.base import Artefact, Unlearned, parameters_of, relative_change
from oneshui.sets import ImageSet, Support

#: noisy images that a GPU is shown at once
_AT_ONCE = 256


class JiT(params.JiT):
    """One SGD step per batch of support photos on the slope of the network around them.

    The loss is the mean over ``n_samples`` noisy copies x' = clamp(x + noise_std e) of the sum over the batch of
    ||f(x) - f(x')|| / ||x - x'||; pixels are clamped to the range of the batch, f(x') is a constant.

    Source: Foster et al. 2024, "Zero-shot machine unlearning at scale via Lipschitz regularization".
    Deviates: gradients of one batch do not leak into the next (the published code never clears them, which shows only
        in requests of more than one batch).
    """

    def precompute(self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int) -> Artefact | None:
        """Return None: nothing of the data is kept."""
        return None

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the smoothed model. Cost: ``n_samples`` + 1 forward passes and one backward pass over S."""
        result = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
        slopes = []
        for images in support.images.split(self.batch_size):
            copies = range(self.n_samples)  # drawn one by one: 25 copies of 50 large photos are a gigabyte
            noise = (torch.randn(images.shape, generator=generator).to(images.device) for _ in copies)
            slopes.append(self.step(result, images, noise))
        step = relative_change(parameters_of(model), parameters_of(result))
        return Unlearned(result, {"relative_step": step, "slope": float(torch.stack(slopes).mean())})

    def step(self, model: nn.Module, images: Tensor, noise: Iterable[Tensor]) -> Tensor:
        """Take one step in place and return the loss before it, a scalar.

        Args:
            model: in evaluation mode.
            images: (B, 3, px, px).
            noise: ``n_samples`` tensors like ``images``, standard normal.
        """
        answer = model(images)
        low, high = images.min(), images.max()
        at_once, left = _copies_at_once(images), iter(noise)
        loss: Tensor = answer.new_zeros(())
        while some := list(islice(left, at_once)):
            copies = [(images + self.noise_std * e).clamp(low, high) for e in some]
            with torch.no_grad():
                answers = model(torch.cat(copies)).split(len(images))
            for noisy, there in zip(copies, answers, strict=True):
                moved = (images - noisy).flatten(1).norm(dim=1).clamp(min=1e-12)  # a photo of one colour cannot move
                loss = loss + ((answer - there).norm(dim=1) / moved).sum() / self.n_samples
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient, alpha=self.lr)
        return loss.detach()


def _copies_at_once(images: Tensor) -> int:
    """Return how many noisy copies of ``images`` the network is shown at once: on a CPU one by one is as fast."""
    return max(1, _AT_ONCE // len(images)) if images.is_cuda else 1
