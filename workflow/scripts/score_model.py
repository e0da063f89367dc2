from oneshui.forks import quick_start

with quick_start():
    from oneshui.devices import choose_device
    from oneshui.job import running
    from oneshui.leases import lease_gpu
    from oneshui.stages.score_model import score_model

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    score_model(
        job.input("model"),
        job.data,
        job.output("scores"),
        job.output("features"),
        run=job.run,
        queries=job.params.queries,
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
