from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.data import split_identities

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    split_identities(
        snakemake.input.index,
        snakemake.output.splits,
        dataset=snakemake.wildcards.dataset,
        seed=int(snakemake.wildcards.seed),
        spec=snakemake.params.spec,
    )
