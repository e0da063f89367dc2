from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.identities import measure_identities

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    measure_identities(
        snakemake.input.scores,
        snakemake.input.pretrain,
        snakemake.input.retrain,
        snakemake.input.features,
        snakemake.input.splits,
        snakemake.input.index,
        snakemake.output.identities,
        dataset=snakemake.wildcards.dataset,
        n=int(snakemake.wildcards.n),
        seed=int(snakemake.wildcards.seed),
        row=snakemake.params.row,
        max_reference=snakemake.params.max_reference,
    )
