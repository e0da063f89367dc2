from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.probe_model import probe_model

with running(snakemake) as job:
    probe_model(
        job.input("features"),
        job.input("splits"),
        job.input("index"),
        job.output("refit"),
        run=job.run,
        model=job.model,
        spec=job.params.spec,
    )
