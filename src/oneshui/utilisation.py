"""What a training run makes of its device: images a second, and the share of the peak that its arithmetic needs."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

#: dense peak of the matrix units in TFLOP/s, by a part of the device's name, most special first: bfloat16, and float32
#: as TF32 (NVIDIA's data sheets give twice as much, for sparse matrices)
_PEAKS = {
    "H100 PCIe": (756.0, 378.0),
    "H100": (989.5, 494.7),
    "H200": (989.5, 494.7),
    "A100": (312.0, 156.0),
    "L40S": (362.0, 183.0),
}
#: a training step in forward passes: the gradients of activations and of weights cost as much each
_FORWARDS_OF_A_STEP = 3


def forward_flop(model: nn.Module, input_px: int) -> float:
    """Return the floating-point operations of one image's forward pass: matrix products and convolutions.

    Args:
        model: takes (B, 3, input_px, input_px).
        input_px: side of the input, px.
    """
    parameter = next(model.parameters())
    training = model.training
    image = torch.zeros(1, 3, input_px, input_px, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(image)
    finally:
        model.train(training)
    return float(counter.get_total_flops())


def peak_of(device: torch.device, precision: str) -> float | None:
    """Return the peak of ``device`` in FLOP/s if it is a GPU that oneshui knows."""
    return peak_flop_per_s(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None


def peak_flop_per_s(device_name: str, precision: str) -> float | None:
    """Return the peak of a GPU that ``oneshui`` knows, or None.

    Args:
        device_name: as torch gives it.
        precision: ``bf16`` or ``fp32``.
    """
    for name, (bf16, tf32) in _PEAKS.items():
        if name in device_name:
            return 1e12 * (bf16 if precision == "bf16" else tf32)
    return None


def training_rate(images: int, seconds: float, flop: float, peak: float | None) -> str:
    """Return images a second, and what they come to, as a phrase for the log.

    Args:
        images: trained on, once each.
        seconds: that it took.
        flop: of one image's forward pass.
        peak: of the device, FLOP/s, if known.
    """
    rate = images / seconds
    used = _FORWARDS_OF_A_STEP * flop * rate
    share = f", {used / peak:.0%} of its peak" if peak else ""
    return f"{rate:,.0f} images/s, {used / 1e12:.3g} TFLOP/s{share}"
