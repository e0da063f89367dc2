"""Bad Teacher: follow an ignorant teacher on the forget set, the original model elsewhere (Chundawat et al. 2023)."""

import copy

import torch
from torch import nn

from oneshui.methods import params
from oneshui.methods.base import Rebuild, Unlearned, parameters_of, relative_change
from oneshui.methods.distillation import SGD, kl_divergence, seeded, shuffled_rows, training_epochs, views
from oneshui.resume import NEVER, Resume
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet


class BadTeacher(params.BadTeacher):
    """Distil a newly initialised network on D_f and the original model on D_r into one student.

    Every step takes a batch of D_f and D_r together, in proportion to their sizes, and minimises the mean of
    KL(teacher || student) over it. The learning rate follows a cosine over the epochs.

    Source: Chundawat et al. 2023 (AAAI), "Can bad teaching induce forgetting?".
    Deviates: for attributes KL is the Bernoulli KL of each (``kl: softmax`` compares softmaxes over attributes, as
        published).
    """

    def unlearn(
        self, model: nn.Module, forget: ImageSet, retain: ImageSet, *, seed: int, rebuild: Rebuild,
        resume: Resume = NEVER,
    ) -> Unlearned:  # fmt: skip
        """Return the student. Cost: ``epochs`` trainings over D_f and D_r, and a pass of each teacher beside."""
        competent, student = copy.deepcopy(model).eval(), copy.deepcopy(model).train()
        ignorant = rebuild(seed_of("bad-teacher", seed)).eval()
        sgd = SGD(student, self.lr, self.momentum, self.weight_decay, self.epochs)
        draw = torch.Generator().manual_seed(seed_of("bad-teacher-batches", seed))
        with seeded(seed_of("bad-teacher-dropout", seed), retain.device):
            for _ in training_epochs(student, sgd, draw, retain.device, self.epochs, resume):
                for rows in shuffled_rows(len(forget) + len(retain), self.batch_size, draw):
                    chosen = [(forget, rows[rows < len(forget)], ignorant)]
                    chosen += [(retain, rows[rows >= len(forget)] - len(forget), competent)]
                    parts = [(views(of, some, self.crop_scale, draw), by) for of, some, by in chosen if len(some)]
                    # one pass of the student: one set of batch statistics
                    logits = student(torch.cat([images for images, _ in parts]))
                    with torch.no_grad():
                        wanted = torch.cat([teacher(images) for images, teacher in parts])
                    kl = kl_divergence(logits, wanted, task=retain.task, form=self.kl, temperature=self.temperature)
                    sgd.step(kl.mean())
        step = relative_change(parameters_of(model), parameters_of(student))
        return Unlearned(student.eval(), {"relative_step": step})
