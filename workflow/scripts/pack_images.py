from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.data import pack_images

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    pack_images(
        snakemake.params.folder,
        snakemake.input.index,
        snakemake.output.images,
        stored_px=snakemake.params.stored_px,
        n_threads=snakemake.threads,
    )
