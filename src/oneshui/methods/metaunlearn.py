"""MetaUnlearn: a learned loss whose gradient on the support photos unlearns, in one step (paper, section 4).

The meta-gradient is exact without a second-order graph through the backbone. With f = f_theta(S) the outputs on the
support set, g = d h_phi / d f, theta_u = theta - eta J^T g, and v = dA / d theta_u:

    dA/dphi = -eta d/dphi < g(phi), J v >

J^T g is one vector-Jacobian product, v a plain backward pass, J v one forward-mode product at (theta, S); only the
small network h_phi is differentiated twice. All three passes are cut into micro-batches, so that memory does not grow
with the request.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from oneshui.diagnostics import has_diverged, is_saturated
from oneshui.errors import ArtefactError, ConfigError, DataError
from oneshui.log import logger
from oneshui.methods import params
from oneshui.methods.base import Artefact, Unlearned
from oneshui.methods.distillation import seeded
from oneshui.methods.metaloss import Backbone, MetaLoss, SupportBatch
from oneshui.methods.outer import Eq6, ScrubOuter, ValidationReference, measure_logits, validation_reference
from oneshui.methods.simulation import SimulatedRequest, simulate_requests
from oneshui.resume import (
    NEVER,
    Resume,
    State,
    generator_states,
    optimiser_state,
    restore_generators,
    restore_optimiser,
)
from oneshui.schedule import cosine
from oneshui.seeds import seed_of, stream
from oneshui.sets import ImageSet, Support
from oneshui.tasks import Task
from oneshui.tensors import misfit, upload


@dataclass
class InnerStep:
    """One simulated or real unlearning step.

    Attributes:
        theta: unlearned parameters.
        cotangents: per micro-batch the gradient of mean h with respect to (features, logits), with a graph to phi.
        mean_h: mean of h over the support set, a scalar on the device, like the next two.
        gradient_norm: ||J^T g||.
        relative_step: ||theta_u - theta|| / ||theta||.
    """

    theta: dict[str, Tensor]
    cotangents: list[tuple[Tensor, Tensor]]
    mean_h: Tensor
    gradient_norm: Tensor
    relative_step: Tensor


class MetaUnlearn(params.MetaUnlearn):
    """One gradient step on a meta-learned loss.

    Source: the paper, equations 4 to 6, Algorithm 1, Table 8.
    Deviates: every parameter moves (the published code leaves the class token and position embeddings behind by
        accident; ``frozen: [cls_token, pos_embed]`` does the same).
    """

    def try_on(self, model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> None:
        """Take the passes of meta-training that a network can lack: gradients and directional derivatives."""
        backbone = Backbone(model)
        features, logits = backbone(backbone.theta, images)
        self._push_forward(backbone, images, {name: value.clone() for name, value in backbone.theta.items()})
        theta = {name: value.clone().requires_grad_() for name, value in backbone.theta.items()}
        outputs = backbone(theta, images)
        torch.autograd.grad(
            outputs, list(theta.values()), (torch.ones_like(features), torch.ones_like(logits)), materialize_grads=True
        )

    # --- before the discard line -------------------------------------------------------------------------------------

    def precompute(
        self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int, resume: Resume = NEVER
    ) -> Artefact:
        """Return h_phi trained on simulated requests (Algorithm 1), with the identity table and the history.

        Cost: per epoch about one forward and backward pass over D_tr, as many validation forward passes, and three
        passes over the simulated support sets.

        Raises:
            DataError: fewer than ``simulated_n`` identities have two images, there is no validation image, or no other
                identity to retain for the outer loss ``scrub``.
        """
        if not len(train):
            raise DataError("metaunlearn: there is no training image to simulate requests with")
        backbone = Backbone(model)
        identities = torch.unique(train.identities)
        meta_loss = self._new_meta_loss(backbone, train, len(identities), seed)
        optimiser = torch.optim.Adam(meta_loss.parameters(), lr=self.lr, amsgrad=True)
        reference = validation_reference(model, val, self.micro_batch)
        meta_loss.train()
        with seeded(seed_of("metaunlearn-dropout", seed), train.device):
            run = _MetaTraining.resumed(meta_loss, optimiser, train.device, resume)
            history = run.history
            for epoch in range(run.epoch, self.epochs):
                for group in optimiser.param_groups:  # by hand: torch's schedules warn where every step was skipped
                    group["lr"] = self.lr * cosine(epoch, self.epochs)
                requests = simulate_requests(
                    train.identities.numpy(), self.simulated_n, seed=seed, epoch=epoch,
                    photos=None if train.photos is None else train.photos.identities.numpy(),
                )  # fmt: skip
                draw = run.begin(epoch, stream("metaunlearn-val", seed, epoch))
                left = requests[run.requests :]
                for request in tqdm(left, desc=f"meta-training {epoch + 1}/{self.epochs}", disable=None):
                    support = self._simulated_support(train, request, identities)
                    outer = self._outer(backbone, train, val, request, reference, draw)
                    history.append({"epoch": epoch, **self._meta_step(backbone, meta_loss, optimiser, support, outer)})
                    run.requests += 1
                    if run.requests < len(requests) or epoch + 1 < self.epochs:
                        resume.save(run.state)
                _log_epoch(epoch, history)
        found = self._diagnose(backbone, meta_loss, history, reference, val, support)
        if found["saturated"]:
            logger.warning("metaunlearn: saturated: the gradient of h_phi vanished, so unlearning will change nothing")
        if found["blown_up"]:
            logger.warning("metaunlearn: diverged: the unlearning step destroys the model. Lower inner_lr or lr.")
        sizes = {"n_outputs": train.task.n_outputs, "n_features": _n_features(backbone, train)}
        tensors = {f"phi.{name}": value for name, value in meta_loss.state_dict().items()}
        return Artefact({**tensors, "identities": identities}, {**sizes, "health": found, "history": history})

    def _diagnose(
        self, backbone: Backbone, meta_loss: MetaLoss, history: list[dict[str, float]], reference: ValidationReference,
        val: ImageSet, support: SupportBatch,
    ) -> dict[str, float | bool]:  # fmt: skip
        """Judge the trained meta-loss on the last simulated request: did the step vanish, does it destroy the model?"""
        last = [entry for entry in history if entry["epoch"] == self.epochs - 1]
        step = self.inner_step(backbone, meta_loss.eval(), support)
        with torch.no_grad():
            logits = torch.cat([backbone(step.theta, images)[1] for images, _ in val.batches(self.micro_batch)])
        drop = reference.measure - measure_logits(val.task, logits, val.labels)
        relative_step = float(np.median([entry["relative_step"] for entry in last]))
        finite = all(entry["finite"] for entry in last) and bool(logits.isfinite().all())
        return {
            "saturated": is_saturated(relative_step),
            "blown_up": has_diverged(finite=finite, relative_step=relative_step, lost=drop),
            "relative_step": relative_step,
            "val_drop": drop,
        }

    def _new_meta_loss(self, backbone: Backbone, train: ImageSet, n_identities: int, seed: int) -> MetaLoss:
        with seeded(seed_of("metaunlearn-init", seed), train.device):
            meta_loss = MetaLoss(
                n_outputs=train.task.n_outputs, n_features=_n_features(backbone, train), n_identities=n_identities,
                inputs=self.inputs, hidden=self.hidden, dropout=self.dropout,
            )  # fmt: skip
        return meta_loss.to(train.device)

    def _outer(self, backbone: Backbone, train: ImageSet, val: ImageSet, request: SimulatedRequest,
               reference: ValidationReference, draw: np.random.Generator) -> Eq6 | ScrubOuter:  # fmt: skip
        forget = train.subset(torch.from_numpy(request.forget))
        if self.outer_loss == "equation_6":
            return Eq6(self, backbone, forget, val, reference, draw)
        asked = torch.isin(train.identities, forget.identities)
        if asked.all():
            raise DataError(
                f"metaunlearn: a simulated request of {self.simulated_n} takes all train identities, and outer_loss: "
                "scrub needs others to retain. Lower simulated_n."
            )
        return ScrubOuter(self, backbone, forget, train.subset((~asked).nonzero()[:, 0]), draw)

    def _simulated_support(self, train: ImageSet, request: SimulatedRequest, identities: Tensor) -> SupportBatch:
        photos, rows = train if train.photos is None else train.photos, torch.from_numpy(request.support)
        labels = photos.labels[upload(rows, train.device)]
        table_rows = torch.searchsorted(identities, photos.identities[rows])
        return SupportBatch(photos.images(rows), train.task.target_vectors(labels), upload(table_rows, train.device))

    def _meta_step(self, backbone: Backbone, meta_loss: MetaLoss, optimiser: torch.optim.Optimizer,
                   support: SupportBatch, outer: Eq6 | ScrubOuter) -> dict[str, float]:  # fmt: skip
        """Simulate one request and update phi once; a request whose outer loss is not finite is skipped."""
        step = self.inner_step(backbone, meta_loss, support)
        result = outer(step.theta)
        mean_h, norm, relative_step = torch.stack([step.mean_h, step.gradient_norm, step.relative_step]).tolist()
        finite = math.isfinite(result.value) and math.isfinite(relative_step)
        if finite:
            optimiser.zero_grad(set_to_none=True)
            self.accumulate_meta_gradient(backbone, support, step, result.gradient)
            optimiser.step()
        return {
            "outer_loss": result.value, "mean_h": mean_h, "gradient_norm": norm, "relative_step": relative_step,
            "finite": float(finite), **result.notes,
        }  # fmt: skip

    # --- the unlearning step and its exact gradient ------------------------------------------------------------------

    def inner_step(self, backbone: Backbone, meta_loss: Callable[..., Tensor], support: SupportBatch) -> InnerStep:
        """Return theta - eta grad_theta mean_S h_phi, keeping what the meta-gradient needs (equation 4)."""
        unknown = [name for name in self.frozen if f"model.{name}" not in backbone.theta]
        if unknown:
            raise ConfigError(f"metaunlearn: frozen names no parameter of this model: {', '.join(unknown)}")
        theta = {name: value.clone().requires_grad_() for name, value in backbone.theta.items()}
        direction = {name: torch.zeros_like(value) for name, value in backbone.theta.items()}
        cotangents, mean_h = [], torch.zeros((), dtype=torch.float64, device=support.images.device)
        answer = backbone.replayed("answer", partial(_answer, backbone))
        pull_back = backbone.replayed("pull back", partial(_pull_back, backbone))
        # a graph of autograd cannot be recorded in two parts, so what is replayed asks the network twice
        twice = answer.records
        for part in support.chunks(self.micro_batch):
            outputs = answer(part.images) if twice else backbone(theta, part.images)
            leaves = [output.detach().requires_grad_() for output in outputs]
            h = meta_loss(*leaves, part.targets, part.rows).sum() / len(support.images)
            g_features, g_logits = torch.autograd.grad(
                h, leaves, create_graph=torch.is_grad_enabled(), materialize_grads=True
            )
            by_outputs = (g_features.detach(), g_logits.detach())
            if twice:
                gradients = pull_back(part.images, *by_outputs)
            else:
                gradients = torch.autograd.grad(outputs, list(theta.values()), by_outputs, materialize_grads=True)
            for total, gradient in zip(direction.values(), gradients, strict=True):
                total += gradient
            cotangents.append((g_features, g_logits))
            mean_h += h.detach()
        for name in direction:
            if name.removeprefix("model.") in self.frozen:
                direction[name].zero_()
        moved = {name: value - self.inner_lr * direction[name] for name, value in backbone.theta.items()}
        norm, size = _norm(direction), _norm(backbone.theta)
        return InnerStep(moved, cotangents, mean_h, norm, self.inner_lr * norm / size)

    def accumulate_meta_gradient(
        self, backbone: Backbone, support: SupportBatch, step: InnerStep, outer_gradient: dict[str, Tensor]
    ) -> None:
        """Add dA/dphi to the ``.grad`` of the parameters of h_phi.

        Args:
            backbone: the network at theta.
            support: the request of ``step``.
            step: made by ``inner_step`` with gradients enabled.
            outer_gradient: v = dA / d theta_u, by parameter name.
        """
        tangent = {
            name: torch.zeros_like(value) if name.removeprefix("model.") in self.frozen else value
            for name, value in outer_gradient.items()
        }
        for part, (g_features, g_logits) in zip(support.chunks(self.micro_batch), step.cotangents, strict=True):
            d_features, d_logits = self._push_forward(backbone, part.images, tangent)
            surrogate = -self.inner_lr * ((g_features * d_features).sum() + (g_logits * d_logits).sum())
            surrogate.backward()

    def _push_forward(self, backbone: Backbone, images: Tensor, tangent: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return J v for the outputs on ``images``, detached."""
        if self.jvp == "finite_difference":
            return _finite_difference(backbone, images, tangent)
        d_features, d_logits = backbone.replayed("jvp", partial(_exact_jvp, backbone))(images, *tangent.values())
        return d_features, d_logits

    # --- after the discard line --------------------------------------------------------------------------------------

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the model after one step on h_phi. Cost: one forward and backward pass over S."""
        if artefact is None:
            raise ArtefactError("metaunlearn needs its artefact, the trained meta-loss. Precompute it.")
        backbone = Backbone(model)
        with torch.no_grad():
            n_features = int(backbone(backbone.theta, support.images[:1])[0].shape[1])
        meta_loss, rows = self._restore(artefact, support, n_features)
        batch = SupportBatch(support.images, support.task.target_vectors(support.labels), rows)
        with seeded(seed_of("metaunlearn-unlearn", seed), support.images.device):
            step = self.inner_step(backbone, _mean_over_masks(meta_loss, self.dropout_samples), batch)
        result = copy.deepcopy(model)
        moved = {name.removeprefix("model."): value for name, value in step.theta.items()}
        with torch.no_grad():
            for name, parameter in result.named_parameters():
                parameter.copy_(moved[name])
        trained, relative_step = artefact.metadata.get("health", {}), float(step.relative_step)
        found: dict[str, float | bool] = {
            "mean_h": float(step.mean_h),
            "relative_step": relative_step,
            "saturated": is_saturated(relative_step, trained.get("relative_step", 0.0)),
            "blown_up": bool(trained.get("blown_up", False)) or has_diverged(relative_step=relative_step),
            "unknown_identities": float((rows < 0).sum()),
        }
        if found["saturated"]:
            logger.warning(
                "metaunlearn: saturated: the relative step is %.2g, of simulated requests it was %.2g: nothing was "
                "forgotten", relative_step, trained.get("relative_step", math.nan),
            )  # fmt: skip
        return Unlearned(result, found)

    def of_people(self, artefact: Artefact, rows: Tensor) -> Artefact:
        """Return the meta-loss with the rows of these people in its table, without its history of simulated requests.

        The others' part in training the meta-loss stays.
        """
        tensors, table = dict(artefact.tensors), "phi.embed.weight"
        tensors |= {"identities": artefact.need("identities")[rows], table: artefact.need(table)[rows]}
        return Artefact(tensors, {key: value for key, value in artefact.metadata.items() if key != "history"})

    def numbers_of_people(self, artefact: Artefact) -> Tensor:
        """Return the width of the table of people, for each."""
        people, width = artefact.need("phi.embed.weight").shape
        return torch.full((people,), width)

    def _restore(self, artefact: Artefact, support: Support, n_features: int) -> tuple[MetaLoss, Tensor]:
        """Return h_phi in evaluation mode and the identity rows of the request (-1 where unknown)."""
        identities = artefact.people()
        if not identities.numel():
            raise ArtefactError("everybody whom the artefact knew was forgotten, so there is no mean entry to use.")
        if artefact.metadata.get("n_features") != n_features:
            raise ArtefactError(
                f"the artefact was made for {artefact.metadata.get('n_features')!r:.40} features, the model has "
                f"{n_features}. Precompute it again."
            )
        sizes = {"n_outputs": support.task.n_outputs, "n_features": n_features, "n_identities": len(identities)}
        make = partial(MetaLoss, **sizes, inputs=self.inputs, hidden=self.hidden, dropout=self.dropout)
        with torch.device("meta"):  # takes no memory before the sizes are known to be those of the tensors
            wanted = make().state_dict()
        state = {name.removeprefix("phi."): t for name, t in artefact.tensors.items() if name.startswith("phi.")}
        wrong = misfit(state, wanted)
        if wrong:
            raise ArtefactError(
                f"the stored meta-loss does not fit these hyper-parameters or classes: {wrong}. Precompute it again."
            )
        meta_loss = make()
        meta_loss.load_state_dict(state)
        same = support.identities[:, None] == identities
        rows = torch.where(same.any(1), same.int().argmax(1), -1)
        device = support.images.device
        return meta_loss.to(device).eval(), rows.to(device)


@dataclass
class _MetaTraining:
    """How far meta-training has come.

    Attributes:
        meta_loss: h_phi.
        optimiser: of its parameters.
        device: of both.
        history: one entry a simulated request.
        epoch: the present one.
        requests: how many of its simulated requests are done.
        draw: chooses validation images in this epoch; None before the first.
        drawn: the state that it had when a process was killed within this epoch.
    """

    meta_loss: MetaLoss
    optimiser: torch.optim.Optimizer
    device: torch.device
    history: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0
    requests: int = 0
    draw: np.random.Generator | None = None
    drawn: dict[str, Any] | None = None

    @classmethod
    def resumed(
        cls, meta_loss: MetaLoss, optimiser: torch.optim.Optimizer, device: torch.device, resume: Resume
    ) -> "_MetaTraining":
        """Return the beginning, or what a killed process left, with the state that it had in all the arguments."""
        loaded = resume.load()
        if loaded is None:
            return cls(meta_loss, optimiser, device)
        groups, note = loaded
        with resume.restoring():
            meta_loss.load_state_dict(groups["phi"])
            restore_optimiser(meta_loss.named_parameters(), optimiser, groups.get("optimiser", {}))
            restore_generators(device, groups["generators"])
            left = cls(
                meta_loss, optimiser, device, list(note["history"]), int(note["epoch"]), int(note["requests"]),
                drawn=dict(note["drawn"]),
            )  # fmt: skip
        logger.info("resuming after simulated request %d of epoch %d", left.requests, left.epoch)
        return left

    def begin(self, epoch: int, draw: np.random.Generator) -> np.random.Generator:
        """Begin an epoch, or go on with it: return ``draw`` in the state that it had."""
        if epoch > self.epoch:
            self.epoch, self.requests = epoch, 0
        if self.drawn is not None:
            draw.bit_generator.state, self.drawn = self.drawn, None
        self.draw = draw
        return draw

    def state(self) -> State:
        """Return what ``resumed`` goes on from."""
        assert self.draw is not None
        groups = {
            "phi": self.meta_loss.state_dict(),
            "optimiser": optimiser_state(self.meta_loss.named_parameters(), self.optimiser),
            "generators": generator_states(self.device),
        }
        note = {
            "history": self.history, "epoch": self.epoch, "requests": self.requests,
            "drawn": dict(self.draw.bit_generator.state),
        }  # fmt: skip
        return groups, note


def _mean_over_masks(meta_loss: MetaLoss, samples: int) -> Callable[..., Tensor]:
    """Return h_phi without dropout, or its mean over so many dropout masks: the loss that meta-training steps on."""
    if not samples:
        return meta_loss
    meta_loss.train()
    return lambda *inputs: torch.stack([meta_loss(*inputs) for _ in range(samples)]).mean(0)


def _answer(backbone: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of ``images`` without a graph of autograd."""
    with torch.no_grad():
        features, logits = backbone(backbone.theta, images)
    return features, logits


def _pull_back(backbone: Backbone, images: Tensor, by_features: Tensor, by_logits: Tensor) -> tuple[Tensor, ...]:
    """J^T g by parameter, for the gradients g with respect to the outputs on ``images``."""
    theta = {name: value.detach().requires_grad_() for name, value in backbone.theta.items()}
    with torch.enable_grad():
        outputs = backbone(theta, images)
    return torch.autograd.grad(outputs, list(theta.values()), (by_features, by_logits), materialize_grads=True)


def _exact_jvp(backbone: Backbone, images: Tensor, *tangent: Tensor) -> tuple[Tensor, Tensor]:
    """J v for the outputs on ``images``, detached; ``tangent`` in the order of the parameters."""
    along = dict(zip(backbone.theta, tangent, strict=True))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention kernels have no forward mode
        pushed: tuple[Tensor, Tensor] = jvp(lambda theta: backbone(theta, images), (backbone.theta,), (along,))[1]
    return pushed[0].detach(), pushed[1].detach()


def _finite_difference(backbone: Backbone, images: Tensor, tangent: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Central difference along ``tangent``, with a step that balances rounding against curvature in float32."""
    length = _norm(tangent).clamp(min=1e-30)  # a tangent of zeros moves nothing, whatever epsilon is
    epsilon = 1e-3 * _norm(backbone.theta) / length
    with torch.no_grad():
        ahead = backbone({n: value + epsilon * tangent[n] for n, value in backbone.theta.items()}, images)
        behind = backbone({n: value - epsilon * tangent[n] for n, value in backbone.theta.items()}, images)
    return (ahead[0] - behind[0]) / (2 * epsilon), (ahead[1] - behind[1]) / (2 * epsilon)


def _norm(tensors: dict[str, Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(list(tensors.values()))


def _n_features(backbone: Backbone, images: ImageSet) -> int:
    with torch.no_grad():
        return int(backbone(backbone.theta, images.images(torch.tensor([0])))[0].shape[1])


def _log_epoch(epoch: int, history: list[dict[str, float]]) -> None:
    last: list[dict[str, Any]] = [entry for entry in history if entry["epoch"] == epoch]
    means = {key: float(np.mean([entry[key] for entry in last])) for key in last[0] if key != "epoch"}
    logger.info("meta-training epoch %d: %s", epoch, ", ".join(f"{key} {value:.4g}" for key, value in means.items()))
