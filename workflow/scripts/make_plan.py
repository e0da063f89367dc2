from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.plan import make_plan

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    make_plan(
        snakemake.input.rates,
        snakemake.input.published,
        snakemake.output.text,
        snakemake.output.csv,
        config=snakemake.config,
        counted=snakemake.params.counted,
    )
