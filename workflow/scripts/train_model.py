from oneshui.job import running
from oneshui.leases import lease_gpu
from oneshui.startup import quick_imports

with quick_imports():
    from oneshui.devices import choose_device
    from oneshui.stages.train import train_model

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    role = job.params.role
    train_model(
        job.input("index"),
        job.input("images"),
        job.input("splits"),
        job.output("model"),
        weights_path=job.optional_input("weights"),
        role=role,
        dataset=job.dataset,
        n=None if role == "pretrain" else job.n,
        seed=job.seed,
        spec=job.params.spec,
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
