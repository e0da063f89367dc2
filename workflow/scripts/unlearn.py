from typing import TYPE_CHECKING

from oneshui.config import training_data_paths
from oneshui.leases import lease_gpu
from oneshui.log import log_to
from oneshui.stages.unlearn import unlearn

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    lease_gpu(snakemake.resources.gpu, jobs_per_gpu=snakemake.config["jobs_per_gpu"])
    unlearn(
        snakemake.input.model,
        snakemake.input.request,
        snakemake.input.artefact or None,
        snakemake.output.model,
        method=snakemake.wildcards.method,
        origin=snakemake.wildcards.origin,
        dataset=snakemake.wildcards.dataset,
        n=int(snakemake.wildcards.n),
        seed=int(snakemake.wildcards.seed),
        spec=snakemake.params.spec,
        gpus=snakemake.resources.gpu,
        threads=snakemake.threads,
        # not a param: a moved data folder must not unlearn anew
        withheld=training_data_paths(snakemake.config),
    )
