from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.data import index_dataset

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    index_dataset(
        snakemake.params.folder,
        snakemake.output.index,
        dataset=snakemake.wildcards.dataset,
        spec=snakemake.params.spec,
        n_threads=snakemake.threads,
    )
