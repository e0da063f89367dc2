from oneshui.forks import quick_start

with quick_start():
    from oneshui.devices import choose_device
    from oneshui.job import running
    from oneshui.leases import lease_gpu
    from oneshui.stages.trace_model import trace_model

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    trace_model(
        job.input("model"),
        job.input("original"),
        job.data,
        job.output("traces"),
        run=job.run,
        model=job.model,
        spec=job.params.spec,
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
