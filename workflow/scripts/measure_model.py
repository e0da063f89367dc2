from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.measure_model import measure_model

with running(snakemake) as job:
    measure_model(
        job.input("scores"),
        job.input("retrain"),
        job.input("splits"),
        job.input("index"),
        job.output("metrics"),
        run=job.run,
        model=job.model,
    )
