from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.report import summarise_attacks

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    summarise_attacks(list(snakemake.input.attacks), snakemake.output.summary, seeds=list(snakemake.params.seeds))
