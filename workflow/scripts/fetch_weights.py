from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.train import fetch_weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    fetch_weights(snakemake.wildcards.model, snakemake.output.weights)
