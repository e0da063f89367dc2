from typing import TYPE_CHECKING

from oneshui.config import method_spec
from oneshui.leases import lease_gpu
from oneshui.log import log_to
from oneshui.startup import quick_imports

with quick_imports():
    from oneshui.devices import choose_device
    from oneshui.stages.artefact import precompute_artefact

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    lease_gpu(snakemake.resources.gpu, jobs_per_gpu=snakemake.config["jobs_per_gpu"])
    precompute_artefact(
        snakemake.input.model,
        snakemake.input.index,
        snakemake.input.images,
        snakemake.input.splits,
        snakemake.output.artefact,
        method=snakemake.wildcards.method,
        dataset=snakemake.wildcards.dataset,
        n=int(snakemake.wildcards.n),
        seed=int(snakemake.wildcards.seed),
        spec=method_spec(
            snakemake.config["methods"],
            snakemake.wildcards.method,
            snakemake.wildcards.dataset,
            int(snakemake.wildcards.n),
        ),
        device=choose_device(gpus=snakemake.resources.gpu, threads=snakemake.threads),
    )
