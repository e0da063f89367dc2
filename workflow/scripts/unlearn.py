from oneshui.forks import quick_start

with quick_start():
    from oneshui.config import training_data_paths
    from oneshui.job import running
    from oneshui.leases import lease_gpu
    from oneshui.stages.unlearn import unlearn

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    unlearn(
        job.input("model"),
        job.input("request"),
        job.optional_input("artefact"),
        job.output("model"),
        run=job.run,
        model=job.model,
        spec=job.params.spec,
        gpus=job.gpus,
        threads=job.threads,
        # not a param: a moved data folder must not unlearn anew
        withheld=training_data_paths(job.config),
    )
