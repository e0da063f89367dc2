from oneshui.forks import quick_start

with quick_start():
    from oneshui.devices import choose_device
    from oneshui.job import running
    from oneshui.leases import lease_gpu
    from oneshui.stages.try_hyperparameters import try_hyperparameters

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    try_hyperparameters(
        job.input("model"),
        job.data,
        job.output("trials"),
        run=job.run,
        spec=job.params.spec,
        grid=job.params.grid,
        n_requests=job.params.n_requests,
        fold_paths=job.inputs("folds"),
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
