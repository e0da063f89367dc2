from typing import TYPE_CHECKING

from oneshui.devices import choose_device
from oneshui.log import log_to
from oneshui.stages.scoring import score_model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    score_model(
        snakemake.input.model,
        snakemake.input.index,
        snakemake.input.images,
        snakemake.output.scores,
        device=choose_device(gpus=snakemake.resources.gpu, threads=snakemake.threads),
    )
