from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.refit import refit_attack

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    refit_attack(
        snakemake.input.features,
        snakemake.input.splits,
        snakemake.input.index,
        snakemake.output.refit,
        dataset=snakemake.wildcards.dataset,
        n=int(snakemake.wildcards.n),
        seed=int(snakemake.wildcards.seed),
        row=snakemake.params.row,
        spec=snakemake.params.spec,
    )
