from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.data import export_request

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    export_request(
        snakemake.input.index,
        snakemake.input.images,
        snakemake.input.splits,
        snakemake.output.request,
        n=int(snakemake.wildcards.n),
        wrong_photos=snakemake.params.wrong_photos,
    )
