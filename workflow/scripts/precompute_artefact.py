from oneshui.config import method_spec
from oneshui.job import running
from oneshui.leases import lease_gpu
from oneshui.startup import quick_imports

with quick_imports():
    from oneshui.devices import choose_device
    from oneshui.stages.artefact import precompute_artefact

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    method = job.wildcard("method")
    precompute_artefact(
        job.input("model"),
        job.input("index"),
        job.input("images"),
        job.input("splits"),
        job.output("artefact"),
        method=method,
        dataset=job.dataset,
        n=job.n,
        seed=job.seed,
        # the rule's params are those that the artefact depends on; a change of the others makes no new one
        spec=method_spec(job.config["methods"], method, job.dataset, job.n),
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
