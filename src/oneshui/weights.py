"""Initial (ImageNet) weights: where they are looked for, how they are read, and the input they were trained with."""

import logging
from pathlib import Path

import huggingface_hub
import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor

from oneshui.config import NO_PICKLES, Channels
from oneshui.errors import CheckpointError, ConfigError, first_line
from oneshui.tensors import not_finite, read_tensors

#: name of a model's weights in its repository on the hub
_HUB_FILE = "model.safetensors"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a local file of weights in timm's names; half precision becomes float32.

    Raises:
        ConfigError: it is not a readable safetensors file (timm would read any other as a pickle), or holds numbers
            that are not finite.
    """
    try:
        if Path(path).suffix != ".safetensors":
            raise OSError("its name does not end in .safetensors")
        tensors = read_tensors(path, torch.device("cpu"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the initial weights {path} are not a readable safetensors file ({error}). {NO_PICKLES}"
        ) from error
    if broken := not_finite(tensors):
        raise ConfigError(
            f"the initial weights {path} have {len(broken)} tensors with numbers that are not finite, e.g. "
            f"{broken[0]!r}. Get the file again."
        )
    half = (torch.float16, torch.bfloat16)
    return {name: tensor.float() if tensor.dtype in half else tensor for name, tensor in tensors.items()}


def config_of(model: str) -> PretrainedCfg | None:
    """Return what timm knows of the weights of ``model``, or None where it does not know the model or its tag."""
    try:
        return timm.get_pretrained_cfg(model)
    except RuntimeError:  # an unknown tag of a known architecture
        return None


def find_weights(model: str, weights_root: str | Path | None) -> Path:
    """Return the weights of timm's ``model`` (name with tag): from a folder, else the hub's cache, else the hub.

    Args:
        model: names the file ``{model}.safetensors`` in ``weights_root``; without a tag, that of its default weights.
        weights_root: folder of such files, or None.

    Raises:
        CheckpointError: they are in none of the three. It lists where was looked, and what to do.
    """
    config = config_of(model)
    full = f"{config.architecture}.{config.tag}" if config and config.tag else model
    tried = []
    if weights_root is None:
        tried.append("weights_root is not set")
    else:
        files = [Path(weights_root) / f"{name}.safetensors" for name in dict.fromkeys([model, full])]
        for file in files:
            if file.is_file():
                return file
        tried.append(f"{' and '.join(map(str, files))} {'does' if len(files) == 1 else 'do'} not exist")
    source = f"model.safetensors of the hub's {config.hf_hub_id}" if config and config.hf_hub_id else "them"
    advice = (
        f"Save {source} as FOLDER/{full}.safetensors and set weights_root: FOLDER (or --config weights_root=FOLDER); "
        "or name another file under training/DATASET/init_weights; or set init_weights: random."
    )
    if not timm.is_model_pretrained(model) or config is None:
        similar = ", ".join(timm.list_pretrained(f"{model.partition('.')[0]}*")[:5]) or "none"
        tried.append(f"timm knows no pretrained weights of that name (names like it: {similar})")
        raise CheckpointError(f"no initial weights {model!r}: {'; '.join(tried)}. {advice}")
    if not config.hf_hub_id:
        tried.append("they are not on the hub")
        raise CheckpointError(f"no initial weights {model!r}: {'; '.join(tried)}. {advice}")
    cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, _HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    tried.append(f"the hub's cache has no {config.hf_hub_id}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would show every attempt on the terminal
    try:
        return Path(huggingface_hub.hf_hub_download(config.hf_hub_id, _HUB_FILE))
    except Exception as error:  # the hub's client raises many kinds; each means that the file cannot be had
        reason = first_line(error)
        tried.append(f"the hub could not be asked ({reason})")
        raise CheckpointError(f"no initial weights {model!r}: {'; '.join(tried)}. {advice}") from error


def input_of_weights(model: str) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of each channel, in [0, 1], that timm's weights were trained with.

    Args:
        model: timm name; without a tag, that of its default weights.

    Raises:
        ConfigError: timm does not know the model, or its tag.
    """
    config = config_of(model)
    if config is None:
        raise ConfigError(
            f"timm does not say what input {model!r} was trained with. Set mean and std under training/DATASET, or "
            "name a tag that timm knows."
        )
    return tuple(map(float, config.mean)), tuple(map(float, config.std))
