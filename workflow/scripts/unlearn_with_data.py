from typing import TYPE_CHECKING

from oneshui.leases import lease_gpu
from oneshui.log import log_to
from oneshui.startup import quick_imports

with quick_imports():
    from oneshui.devices import choose_device
    from oneshui.stages.reference import unlearn_with_data

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    lease_gpu(snakemake.resources.gpu, jobs_per_gpu=snakemake.config["jobs_per_gpu"])
    unlearn_with_data(
        snakemake.input.model,
        snakemake.input.index,
        snakemake.input.images,
        snakemake.input.splits,
        snakemake.output.model,
        method=snakemake.wildcards.method,
        origin=snakemake.wildcards.origin,
        dataset=snakemake.wildcards.dataset,
        n=int(snakemake.wildcards.n),
        seed=int(snakemake.wildcards.seed),
        spec=snakemake.params.spec,
        device=choose_device(gpus=snakemake.resources.gpu, threads=snakemake.threads),
    )
