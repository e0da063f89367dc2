from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.data import check_dataset, expected_counts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    check_dataset(
        snakemake.params.folder,
        snakemake.output.report,
        dataset=snakemake.wildcards.dataset,
        spec=snakemake.params.spec,
        expected=expected_counts(snakemake.input.published, snakemake.params.layout),
        n_threads=snakemake.threads,
    )
