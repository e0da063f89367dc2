"""Hyper-parameters of our methods with their ranges, and what each method costs. Neither needs torch.

Each class is the base of the method itself: ``class SSD(params.SSD)`` in ``ssd.py``. Cards: docs/methods.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from oneshui.checked import Count, CropScale, Fraction, NonNegative, Once, Positive, Spec, checked
from oneshui.methods import costs
from oneshui.methods.costs import Cost, Network, Passes, Sizes

_MICRO_BATCH = "images that are computed at once; a smaller number needs less memory, the result is the same"
_SUPPORT_BATCH = "photos of one step"


@checked("distillation")
class _Distillation(Spec):
    """What methods share that train a student beside a teacher."""

    lr: Positive = Field(description="learning rate of SGD; it follows a cosine over the epochs")
    momentum: Fraction = Field(description="momentum of SGD")
    weight_decay: NonNegative = Field(description="weight decay of SGD")
    temperature: Positive = Field(description="temperature of the KL divergence")
    crop_scale: tuple[()] | CropScale = Field(
        description="smallest and largest area of random crops (mirrored at random too), or [] for the test transform"
    )
    kl: Literal["task", "softmax"] = Field(
        description="`task`: softmax KL for classes, the mean of Bernoulli KLs for attributes; `softmax`: over"
        " attributes too, as published"
    )


@checked("bad_teacher")
class BadTeacher(_Distillation):
    """Hyper-parameters of Bad Teacher."""

    epochs: Count = Field(description="passes over the forget and the retain set")
    batch_size: Count = Field(description="images of a step, from both sets (not published; 128 in the paper's grid)")


def _bad_teacher(spec: costs.Spec, sizes: Sizes) -> Passes:
    """Trainings, each with a forward pass of a teacher (docs/methods/bad_teacher.md)."""
    images = spec["epochs"] * (sizes.retain + sizes.forget)
    return {"train_s": images, "forward_s": images}


BAD_TEACHER_COST = Cost(unlearn=_bad_teacher)


@checked("jit")
class JiT(Spec):
    """Hyper-parameters of JiT."""

    lr: Positive = Field(description="learning rate of plain SGD")
    noise_std: Positive = Field(
        description="standard deviation of the noise, in units of the normalised input. At 30, as published, every"
        " pixel becomes black or white; the authors of JiT use 0.5 to 0.8 for ViTs"
    )
    n_samples: Count = Field(description="noisy copies of each photo")
    batch_size: Count = Field(description=_SUPPORT_BATCH)


JIT_COST = Cost(unlearn=lambda spec, sizes: {"forward_s": spec["n_samples"] * sizes.n, "train_s": sizes.n})


@checked("metaunlearn")
class MetaUnlearn(Spec):
    """Hyper-parameters of MetaUnlearn."""

    inner_lr: Positive = Field(description="eta: size of the unlearning step")
    lr: Positive = Field(
        description="alpha: learning rate of Adam (AMSGrad) for the meta-loss; a cosine over the epochs"
    )
    epochs: Count = Field(description="passes over the training identities; each unlearns every identity once")
    simulated_n: Count = Field(description="identities of a simulated request")
    batch_size: Count = Field(
        description="forget images go in batches of at most this size, each with one of validation (or retain) images"
    )
    micro_batch: Count = Field(description=_MICRO_BATCH)
    hidden: Count = Field(description="width of the meta-loss")
    dropout: Fraction = Field(description="dropout of the meta-loss")
    inputs: Once[Literal["logits", "features", "target", "identity"]] = Field(
        description="what the meta-loss sees (Table 6); logits or features must be among it"
    )
    outer_loss: Literal["equation_6", "scrub"] = Field(
        description="objective of meta-training; `scrub` (Table 5): SCRUB's, on forget and as many retain images, which"
        " ignores the next four"
    )
    terms: Literal["first", "second", "both"] = Field(description="terms of equation 6 (Table 5)")
    accuracy_weight: bool = Field(
        description="multiply losses by 1 - accuracy (or mAP): equation 6; without, equation 5"
    )
    distance: Literal["smooth_l1", "l2"] = Field(description="distance between the losses; `smooth_l1`: Table 8a")
    val_gradient: bool = Field(
        description="let the gradient flow through the validation loss of the unlearned model; published: false"
    )
    frozen: tuple[str, ...] = Field(description="names of parameters that do not move; [] for none")
    dropout_samples: int = Field(
        default=0,
        ge=0,
        description="dropout masks of which unlearning takes the mean: meta-training steps with one at a time; 0: none,"
        " as published",
    )
    outer_precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="number format in which the network answers in the outer objective, on a GPU; the CPU always"
        " computes in fp32; published: bf16",
    )
    jvp: Literal["exact", "finite_difference"] = Field(
        description="forward-mode product; `finite_difference`: two forward passes with fused kernels, for smooth"
        " networks (ReLU networks lose up to 5% in accuracy)"
    )

    @model_validator(mode="after")
    def _sees_the_network(self) -> Self:
        if not {"logits", "features"} & set(self.inputs):
            raise ValueError(
                f"inputs = {list(self.inputs)}, allowed: with logits or features among them, because the meta-loss "
                "must depend on the network's output"
            )
        return self


#: forward passes' worth of one forward-mode product, docs/benchmarks.md; a finite difference takes two passes
_JVP = {"exact": 3, "finite_difference": 2}
#: width of the embedding of an identity (Table 8b)
_EMBEDDING = 64


def _meta_training(spec: costs.Spec, sizes: Sizes) -> Passes:
    """docs/methods/metaunlearn.md, docs/benchmarks.md: 376 forward passes' worth at 20 photos, 64 forget images.

    A request: step and J v on the photos, gradient on the forget images, which are paired in batches with validation
    images (retain images, seen by both models, for SCRUB's objective). Before and after: the whole validation set.
    """
    batch, n = spec["batch_size"], spec["simulated_n"]
    requests = spec["epochs"] * math.ceil(sizes.people / n)
    forget = n * (sizes.each - 1)
    pairs = math.ceil(round(forget) / batch)
    if spec["outer_loss"] == "scrub":
        beside = pairs * min(batch, sizes.trained - n * sizes.each)
        outer = {"forward": forget + beside, "train": forget + beside}
    else:
        val, through_val = pairs * min(batch, sizes.val), spec["val_gradient"] and spec["terms"] != "second"
        outer = {"forward": 0 if through_val else val, "train": forget + (val if through_val else 0)}
    return {
        "train_s": requests * (n + outer["train"]) + n,
        "forward_s": requests * (_JVP[spec["jvp"]] * n + outer["forward"]) + 2 * sizes.val,
    }


def _meta_loss_bytes(spec: costs.Spec, sizes: Sizes, network: Network) -> float:
    """Table of identities, two layers (Table 8b), who they are."""
    widths = {"logits": costs.OUTPUTS, "features": network.features, "target": costs.OUTPUTS, "identity": _EMBEDDING}
    width, hidden = sum(widths[name] for name in spec["inputs"]), int(spec["hidden"])
    return 4 * (_EMBEDDING * sizes.people + hidden * (width + hidden)) + 8 * sizes.people


METAUNLEARN_COST = Cost(lambda spec, sizes: {"train_s": sizes.n}, _meta_training, _meta_loss_bytes)


@checked("pgu")
class PGU(Spec):
    """Hyper-parameters of PGU."""

    lr: Positive = Field(description="learning rate of plain SGD; it follows a cosine over the epochs")
    epochs: Count = Field(description="steps over the support set")
    gamma: float = Field(gt=0, lt=1, description="share of the singular values whose directions are protected")
    entropy_weight: NonNegative = Field(description="weight of the answers' entropy, which rises")
    spectrum: Literal["clamp", "absolute"] = Field(
        description="negative eigenvalues of the difference of Gram matrices count as 0, or by their size as published"
    )
    batch_size: Count = Field(description=_SUPPORT_BATCH)
    micro_batch: Count = Field(description=_MICRO_BATCH)


PGU_COST = Cost(
    # Gram matrices of the photos, eigenvectors of every layer, steps on the photos
    unlearn=lambda spec, sizes: {"gram_s": sizes.n, "eigh_s": 1, "train_s": spec["epochs"] * sizes.n},
    precompute=lambda spec, sizes: {"gram_s": sizes.trained},
    artefact_bytes=lambda spec, sizes, network: 4 * network.grams,
)


@checked("scrub")
class SCRUB(_Distillation):
    """Hyper-parameters of SCRUB."""

    epochs: Count = Field(description="epochs; each has a pass over the retain set")
    forget_epochs: int = Field(
        ge=0, description="first epochs that have a pass over the forget set too; at most `epochs`"
    )
    alpha: NonNegative = Field(description="weight of the KL divergence on the retain set")
    gamma: NonNegative = Field(description="weight of the task loss on the retain set")
    clip_norm: Positive = Field(description="largest gradient norm in a forget pass")
    forget_batch_size: Count = Field(description="forget images of a step (not published; 128 in the paper's grid)")
    retain_batch_size: Count = Field(description="retain images of a step (not published; 128 in the paper's grid)")

    @model_validator(mode="after")
    def _epochs_agree(self) -> Self:
        if self.forget_epochs > self.epochs:
            raise ValueError(f"forget_epochs = {self.forget_epochs}, allowed: <= epochs = {self.epochs}")
        return self


def _scrub(spec: costs.Spec, sizes: Sizes) -> Passes:
    """Trainings, each with a forward pass of the teacher (docs/methods/scrub.md)."""
    images = spec["epochs"] * sizes.retain + spec["forget_epochs"] * sizes.forget
    return {"train_s": images, "forward_s": images}


SCRUB_COST = Cost(unlearn=_scrub)


@checked("ssd")
class SSD(Spec):
    """Hyper-parameters of SSD."""

    selection: Positive = Field(
        description="alpha: parameters with I_S > alpha I_D are dampened; a larger number dampens fewer"
    )
    dampening: Positive = Field(
        description="lambda: they are multiplied by min(lambda I_D / I_S, 1); a smaller number dampens harder"
    )
    fisher: Literal["image", "batch"] = Field(
        description="`image`: squares each image's gradient; `batch`: that of a batch's mean loss, as published"
    )
    batch_size: Count = Field(
        description="training images of a batch; it changes the result with `fisher: batch` only (the photos are"
        " always one batch)"
    )
    micro_batch: Count = Field(
        description="images whose single gradients are held at once; memory: as many copies of the model"
    )


def _gradients(spec: costs.Spec, images: float) -> Passes:
    """A gradient of every image, or of batches (docs/methods/ssd.md)."""
    return {"fisher_s" if spec["fisher"] == "image" else "train_s": images}


SSD_COST = Cost(
    unlearn=lambda spec, sizes: _gradients(spec, sizes.n),
    precompute=lambda spec, sizes: _gradients(spec, sizes.trained),
    artefact_bytes=lambda spec, sizes, network: 4 * network.parameters,
)


_FOLDS = "fold models: each is one more training, without 1/folds of the people"


@checked("fold_model")
class FoldModel(Spec):
    """Hyper-parameters of the fold model, served as it is."""

    folds: int = Field(ge=2, description=_FOLDS)


FOLD_MODEL_COST = Cost(
    unlearn=lambda spec, sizes: {},
    precompute=lambda spec, sizes: {},
    artefact_bytes=lambda spec, sizes, network: 4 * spec["folds"] * network.parameters,
)


@checked("identity_edits")
class IdentityEdits(Spec):
    """Hyper-parameters of identity edits."""

    folds: int = Field(ge=2, description=_FOLDS)
    blocks: Count = Field(description="last blocks of the network that are edited")
    rank: Count | None = Field(description="rank of what is kept of a person and layer; null: all of it")
    weight: Positive = Field(
        description="weight of a person's images beside those of everybody, in the last layer (100 in the prototype)"
    )
    weight_earlier: Positive = Field(description="the same in earlier layers (10 in the prototype)")
    ridge: Positive = Field(
        description="share of the mean square of a layer's inputs that is added to each (0.01 in the prototype)"
    )
    spread: float = Field(
        ge=0,
        le=1,
        description="how much targets vary: 0: as a regression predicts them, which is less than activations do: then"
        " the model answers less surely than one that never saw the person; 1: as activations on unseen"
        " images; between them: the ratio of both to this power",
    )
    calibrate: Literal["person", "halfway", "none"] = Field(
        description="scale edits so that the model is as sure of a person's labels as the model without their fold is:"
        " `person`: each by their own number; `halfway`: each by the mean of their own and everybody's mean, because"
        " few photos say little"
    )
    solve: Literal["sum", "joint"] = Field(
        description="`sum`: a request adds the edits of its people; `joint`: one solution for all of them, for large"
        " requests"
    )
    max_positions: Count = Field(description="positions of an image (pixels, tokens) that are looked at in a layer")
    batch_size: Count = Field(description="images that are computed at once")


#: scales that the calibration tries, at most
CALIBRATION_STEPS = 8


def _edits(spec: costs.Spec, sizes: Sizes) -> Passes:
    """Maps from every fold model, then each person with the models, their edits and the calibration.

    For one block a person needs the fold model without them alone.
    """
    models = spec["folds"] + 1
    asked = models if spec["blocks"] > 1 else 2
    person = asked + spec["blocks"] - 1 + CALIBRATION_STEPS * (spec["calibrate"] != "none")
    unseen = sizes.val if spec["spread"] else sizes.val / 2
    return {"forward_s": models * (sizes.trained + unseen) + person * sizes.trained}


def _edits_bytes(spec: costs.Spec, sizes: Sizes, network: Network) -> float:
    """Keys and changes of every person, and the inputs of each layer: of blocks as wide as the last one.

    A position of it sees a square of 32 px, as in most networks.
    """
    positions = min(spec["max_positions"], math.ceil(network.px / 32) ** 2)
    rows = sizes.trained / sizes.people * positions
    person: float = min(rows, spec["rank"] or rows) * network.edit_width
    return 4.0 * int(spec["blocks"]) * (sizes.people * person + network.edit_width**2)


IDENTITY_EDITS_COST = Cost(lambda spec, sizes: {}, _edits, _edits_bytes)
