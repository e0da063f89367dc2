from oneshui.forks import quick_start

with quick_start():
    from oneshui.devices import choose_device
    from oneshui.job import running
    from oneshui.leases import lease_gpu
    from oneshui.stages.unlearn_with_data import unlearn_with_data

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    unlearn_with_data(
        job.input("model"),
        job.data,
        job.output("model"),
        run=job.run,
        model=job.model,
        spec=job.params.spec,
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
