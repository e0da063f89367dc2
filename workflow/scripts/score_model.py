from typing import TYPE_CHECKING

from oneshui.leases import lease_gpu
from oneshui.log import log_to
from oneshui.startup import quick_imports

with quick_imports():
    from oneshui.devices import choose_device
    from oneshui.stages.scoring import score_model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    lease_gpu(snakemake.resources.gpu, jobs_per_gpu=snakemake.config["jobs_per_gpu"])
    score_model(
        snakemake.input.model,
        snakemake.input.index,
        snakemake.input.images,
        snakemake.input.splits,
        snakemake.output.scores,
        snakemake.output.features,
        dataset=snakemake.wildcards.dataset,
        seed=int(snakemake.wildcards.seed),
        queries=snakemake.params.queries,
        device=choose_device(gpus=snakemake.resources.gpu, threads=snakemake.threads),
    )
