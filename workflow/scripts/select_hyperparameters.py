from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.rank import select_hyperparameters

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    select_hyperparameters(list(snakemake.input.trials), snakemake.output.ranking)
