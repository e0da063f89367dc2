from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.data import render_faces

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    render_faces(snakemake.output.marker, layout=snakemake.params.layout, spec=snakemake.params.spec)
