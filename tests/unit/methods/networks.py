"""Every family of timm, at tiny size, with every method: what works, and the tables that say so.

    python -m tests.unit.methods.networks

writes resources/networks.csv and the table of docs/networks.md; tests compare both with what they find.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import nn

from oneshui.errors import ConfigError
from oneshui.methods import METHODS, make_method, needs_of
from oneshui.methods.base import OutOfFold
from oneshui.models import ModelSpec, build_model, check_model
from oneshui.networks import problems_of
from oneshui.planning.networks import key_of
from oneshui.sets import ImageSet, Support
from oneshui.tasks import Task

ROOT = Path(__file__).parents[3]
TABLE, PAGE, MARK = (
    ROOT / "resources/networks.csv",
    ROOT / "docs/networks.md",
    "<!-- python -m tests.unit.methods.networks -->",
)
VIT = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}

#: timm name -> family, input size in px, options that make it tiny
NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "test_resnet": ("ResNet", 32, {}),
    "resnetblur18": ("ResNet with fixed blur filters", 32, {"channels": (8, 8, 8, 8)}),
    "resnet10t": ("ResNet", 32, {"channels": (8, 8, 8, 8), "stem_width": 8}),
    "resnet18": ("ResNet", 32, {"channels": (8, 8, 8, 8)}),
    "resnetv2_50x1_bit": ("BiT: ResNetV2 with weight standardisation", 64, {"channels": (128,) * 4, "stem_chs": 32}),
    "nf_regnet_b0": ("normaliser-free, scaled weight standardisation", 32, {}),
    "convnext_atto": ("ConvNeXt", 32, {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}),
    "tf_efficientnet_b0": ("EfficientNet, TensorFlow padding", 32, {}),
    "tf_efficientnet_lite0": ("EfficientNet-Lite, TensorFlow padding", 32, {}),
    "mobilenetv3_small_050": ("MobileNetV3", 32, {}),
    "regnetx_002": ("RegNet", 32, {}),
    "densenet121": ("DenseNet", 32, {"growth_rate": 4, "block_config": (1, 1, 1, 1)}),
    "vit_tiny_patch16_224": ("ViT", 32, VIT),
    "deit_tiny_distilled_patch16_224": ("DeiT, distilled", 32, VIT),
    "vit_small_patch14_dinov2": ("DINOv2: layer scale", 32, VIT),
    "vit_small_patch14_reg4_dinov2": ("DINOv2 with registers", 32, VIT),
    "swin_tiny_patch4_window7_224": (
        "Swin", 32, {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4},
    ),
    "mixer_s16_224": ("MLP-Mixer", 32, {"mlp_ratio": (0.5, 0.25)}),
    "coatnet_0_224": ("CoAtNet", 64, {"embed_dim": (8, 8, 32, 32), "depths": (1, 1, 1, 1), "stem_width": 8}),
    "tf_efficientnet_cc_b0_4e": ("CondConv: weights mixed for each image", 32, {}),
}  # fmt: skip

#: the least that each method can be asked with
PARAMS: dict[str, dict[str, Any]] = {
    "ssd": {"selection": 1.0, "dampening": 0.5, "fisher": "image", "batch_size": 4, "micro_batch": 2},
    "pgu": {
        "lr": 1e-2, "epochs": 1, "gamma": 0.8, "entropy_weight": 0.2, "spectrum": "clamp", "batch_size": 4,
        "micro_batch": 4,
    },
    "jit": {"lr": 1e-3, "noise_std": 0.5, "n_samples": 2, "batch_size": 4},
    "metaunlearn": {
        "inner_lr": 1e-3, "lr": 1e-3, "epochs": 1, "simulated_n": 2, "batch_size": 8, "micro_batch": 4, "hidden": 8,
        "dropout": 0.5, "inputs": ["logits", "features", "target", "identity"], "outer_loss": "equation_6",
        "terms": "both", "accuracy_weight": True, "distance": "smooth_l1", "val_gradient": False, "frozen": [],
        "jvp": "exact",
    },
    "scrub": {
        "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 1, "forget_epochs": 1, "alpha": 0.001,
        "gamma": 0.99, "temperature": 4.0, "clip_norm": 1.0, "forget_batch_size": 4, "retain_batch_size": 4,
        "crop_scale": [], "kl": "task",
    },
    "bad_teacher": {
        "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "epochs": 1, "temperature": 1.0, "batch_size": 8,
        "crop_scale": [], "kl": "task",
    },
    "fold_model": {"folds": 2},
    "identity_edits": {
        "folds": 2, "blocks": 1, "rank": 2, "weight": 100.0, "weight_earlier": 10.0, "ridge": 0.01,
        "spread": 0.5, "calibrate": "none", "solve": "sum", "max_positions": 8, "batch_size": 8,
    },
}  # fmt: skip
#: kinds with a column in the table
KINDS = sorted(PARAMS)
TASKS = {kind: Task(kind, ("a", "b", "c")) for kind in ("classification", "multilabel")}


def outcome(network: str, method: str, kind: str, device: str = "cpu") -> str:
    """Return why ``method`` cannot work with ``network``, or "": it gave finite weights, other than before."""
    _, px, options = NETWORKS[network]
    task = TASKS[kind]
    spec = ModelSpec(network, task, px, 0.5, 0.5, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(spec)
        with torch.no_grad():
            for parameter in model.parameters():  # timm starts some at 0, behind which nothing has a gradient
                if not parameter.any():
                    parameter.normal_(0, 0.1)
        check_model(model, spec, torch.device("cpu"))
        labels = torch.randint(0, 3, (8,)) if kind == "classification" else torch.randint(0, 2, (8, 3))
        pixels, model, labels = torch.randn(8, 3, px, px).to(device), model.to(device), labels.to(device)
        images = ImageSet.of_inputs(pixels, labels, task, torch.arange(8) // 2)
    unlearner = make_method({"kind": method, **PARAMS[method]})
    try:
        if needs_of({"kind": method}) == "data":
            result = unlearner.unlearn(
                model, images.subset(torch.arange(2)), images.subset(torch.arange(2, 8)), seed=0,
                rebuild=lambda seed: build_model(spec),
            )  # fmt: skip
        else:
            support = Support(images.pixels[:2], labels[:2], torch.arange(2), task)
            folds = {"out_of_fold": _folds(model)} if METHODS[method].folds else {}
            artefact = unlearner.precompute(model, images, images, seed=0, **folds)
            result = unlearner.unlearn(model, support, artefact, seed=0)
    except ConfigError as error:
        return str(error)
    before, after = model.state_dict(), result.model.state_dict()
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert method == "ssd" or any(not torch.equal(value, before[name]) for name, value in after.items())
    return ""


def _folds(model: nn.Module) -> list[OutOfFold]:
    """Two models beside ``model`` that were "trained" without half of the four people."""

    def near(fold: int) -> nn.Module:
        other = copy.deepcopy(model)
        draw = torch.Generator().manual_seed(fold)
        with torch.no_grad():
            for value in other.parameters():
                value.add_(0.01 * torch.randn(value.shape, generator=draw))
        return other

    return [OutOfFold(torch.arange(4)[fold::2], lambda fold=fold: near(fold)) for fold in range(2)]


def row_of(network: str) -> dict[str, Any]:
    """Return a network's row of resources/networks.csv."""
    family, px, options = NETWORKS[network]
    found = {method: {outcome(network, method, kind) for kind in TASKS} for method in KINDS}
    problems = {name: max(of) for name, of in found.items()}
    return {"network": network, "options": json.dumps(options, sort_keys=True), "px": px, "family": family, **problems}


def shipped() -> dict[tuple[str, str, int], tuple[str, dict[str, Any]]]:
    """Return the networks of our configurations: a configuration and its entry under training."""
    found = {}
    for path in sorted((ROOT / "config").glob("*.yaml")):
        for training in yaml.safe_load(path.read_text())["training"].values():
            found.setdefault(key_of(training), (path.name, training))
    return found


def tried_row_of(key: tuple[str, str, int]) -> dict[str, Any]:
    """Return the row of a network of our configurations, as the workflow would try it: as large as it is."""
    name, training = shipped()[key]
    found = problems_of(training, {kind: [{"kind": kind, **params}] for kind, params in PARAMS.items()})
    problems = {kind: found.get(kind, "") for kind in KINDS}
    return {"network": key[0], "options": key[1], "px": key[2], "family": f"as in {name}", **problems}


def page_table(table: pd.DataFrame) -> str:
    """Return the table of docs/networks.md."""
    lines = [f"| network | family | {' | '.join(KINDS)} |", f"|---|---|{':-:|' * len(KINDS)}"]
    for row in table.to_dict("records"):
        marks = " | ".join("no" if row[name] else "yes" for name in KINDS)
        lines.append(f"| `{row['network']}` | {row['family']} | {marks} |")
    return "\n".join(lines)


def with_table(page: str, table: pd.DataFrame) -> str:
    """Return the page with its table as it should be."""
    before, _, rest = page.partition(MARK)
    _, _, after = rest.partition("<!-- end -->")
    return f"{before}{MARK}\n{page_table(table)}\n<!-- end -->{after}"


def main() -> None:
    torch.set_num_threads(1)  # with more, tiny products wait for each other
    table = pd.DataFrame([*(row_of(network) for network in NETWORKS), *(tried_row_of(key) for key in shipped())])
    TABLE.write_text(table.to_csv(index=False, lineterminator="\n"))
    PAGE.write_text(with_table(PAGE.read_text(), table))


if __name__ == "__main__":
    main()
