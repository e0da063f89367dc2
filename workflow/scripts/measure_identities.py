from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.measure_identities import measure_identities

with running(snakemake) as job:
    measure_identities(
        job.input("scores"),
        job.input("pretrain"),
        job.input("retrain"),
        job.input("features"),
        job.input("splits"),
        job.input("index"),
        job.output("identities"),
        run=job.run,
        model=job.model,
        max_reference=job.params.max_reference,
    )
