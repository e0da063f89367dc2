from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.report import make_figure

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    make_figure(
        list(snakemake.input.sources),
        snakemake.output.pdf,
        snakemake.output.png,
        snakemake.output.csv,
        name=snakemake.wildcards.figure,
        spec=snakemake.params.spec,
        rows=list(snakemake.params.rows),
        seeds=list(snakemake.params.seeds),
    )
