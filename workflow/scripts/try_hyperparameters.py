from oneshui.job import running
from oneshui.leases import lease_gpu
from oneshui.startup import quick_imports

with quick_imports():
    from oneshui.devices import choose_device
    from oneshui.stages.select import try_hyperparameters

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    try_hyperparameters(
        job.input("model"),
        job.input("index"),
        job.input("images"),
        job.input("splits"),
        job.output("trials"),
        dataset=job.dataset,
        n=job.n,
        seed=job.seed,
        spec=job.params.spec,
        grid=job.params.grid,
        n_requests=job.params.n_requests,
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
