"""SCRUB: a student that leaves its teacher on the forget set and follows it elsewhere (Kurmanji et al. 2023)."""

import copy

import torch
from torch import Tensor, nn

from oneshui.errors import DataError
from oneshui.methods import params
from oneshui.methods.base import Rebuild, Unlearned, parameters_of, relative_change
from oneshui.methods.distillation import SGD, kl_divergence, seeded, shuffled_rows, training_epochs, views
from oneshui.resume import NEVER, Resume
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet
from oneshui.tasks import Task
from oneshui.tensors import upload


class SCRUB(params.SCRUB):
    """Alternating epochs: away from the original model on D_f, then towards it and the labels on D_r.

    Forget pass (the first ``forget_epochs`` epochs): minimise -KL(teacher || student), gradient norm clipped. Retain
    pass (every epoch): minimise alpha KL(teacher || student) + gamma task loss. KL at a temperature, times its square.
    The learning rate follows a cosine over the epochs.

    Source: Kurmanji et al. 2023 (NeurIPS), "Towards unbounded machine unlearning"; without its rewinding, as in the
        paper's comparison.
    Deviates: for attributes KL is the Bernoulli KL of each (``kl: softmax`` compares softmaxes over attributes, as
        published).
    """

    def unlearn(
        self, model: nn.Module, forget: ImageSet, retain: ImageSet, *, seed: int, rebuild: Rebuild,
        resume: Resume = NEVER,
    ) -> Unlearned:  # fmt: skip
        """Return the student. Cost: ``epochs`` training passes over D_r, ``forget_epochs`` over D_f."""
        normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
        if min(len(forget), len(retain)) < (2 if normed else 1):
            raise DataError(
                f"scrub: {len(forget)} forget and {len(retain)} retain images; it trains on both, which takes at least "
                f"{'two of each with batch normalisation' if normed else 'one of each'}"
            )
        teacher, student = copy.deepcopy(model).eval(), copy.deepcopy(model).train()
        sgd = SGD(student, self.lr, self.momentum, self.weight_decay, self.epochs)
        draw = torch.Generator().manual_seed(seed_of("scrub-batches", seed))
        scale = self.temperature**2
        with seeded(seed_of("scrub-dropout", seed), retain.device):
            for epoch in training_epochs(student, sgd, draw, retain.device, self.epochs, resume):
                if epoch < self.forget_epochs:
                    for rows in shuffled_rows(len(forget), self.forget_batch_size, draw):
                        images = views(forget, rows, self.crop_scale, draw)
                        away = self._divergence(teacher, student(images), images, forget.task)
                        sgd.step(-scale * away, clip_norm=self.clip_norm)
                for rows in shuffled_rows(len(retain), self.retain_batch_size, draw):
                    images = views(retain, rows, self.crop_scale, draw)
                    logits = student(images)
                    back = self._divergence(teacher, logits, images, retain.task)
                    loss = retain.task.losses(logits, retain.labels[upload(rows, retain.device)]).mean()
                    sgd.step(self.alpha * scale * back + self.gamma * loss)
        step = relative_change(parameters_of(model), parameters_of(student))
        return Unlearned(student.eval(), {"relative_step": step})

    def _divergence(self, teacher: nn.Module, logits: Tensor, images: Tensor, task: Task) -> Tensor:
        with torch.no_grad():
            wanted = teacher(images)
        return kl_divergence(logits, wanted, task=task, form=self.kl, temperature=self.temperature).mean()
