from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.measure import compute_metrics

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    compute_metrics(
        snakemake.input.scores,
        snakemake.input.splits,
        snakemake.input.index,
        snakemake.input.retrain,
        snakemake.output.metrics,
        dataset=snakemake.wildcards.dataset,
        n=int(snakemake.wildcards.n),
        seed=int(snakemake.wildcards.seed),
        row=snakemake.params.row,
    )
