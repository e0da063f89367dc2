from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.report import make_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    make_table(
        list(snakemake.input.metrics),
        snakemake.input.published,
        next(iter(snakemake.input.attacks), None),
        snakemake.output.csv,
        snakemake.output.tidy,
        snakemake.output.markdown,
        snakemake.output.latex,
        name=snakemake.wildcards.table,
        spec=snakemake.params.spec,
        seeds=list(snakemake.params.seeds),
        data_methods=list(snakemake.params.data_methods),
    )
