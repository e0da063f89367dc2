from oneshui.forks import quick_start

with quick_start():
    from oneshui.config import method_spec
    from oneshui.devices import choose_device
    from oneshui.job import running
    from oneshui.leases import lease_gpu
    from oneshui.stages.precompute_artefact import precompute_artefact

with running(snakemake) as job:
    lease_gpu(job.gpus, jobs_per_gpu=job.config["jobs_per_gpu"])
    precompute_artefact(
        job.input("model"),
        job.data,
        job.output("artefact"),
        fold_paths=job.inputs("folds"),
        run=job.run,
        model=job.model,
        # the rule's params are those that the artefact depends on; a change of the others makes no new one
        spec=method_spec(job.config["methods"], job.model.method, job.dataset, job.run.n),
        device=choose_device(gpus=job.gpus, threads=job.threads),
    )
