from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.report import make_faces_figure

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    make_faces_figure(
        list(snakemake.input.identities),
        list(snakemake.input.splits),
        snakemake.input.images,
        snakemake.output.pdf,
        snakemake.output.png,
        snakemake.output.csv,
        name=snakemake.wildcards.figure,
        spec=snakemake.params.spec,
    )
