from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.make_plan import make_plan

with running(snakemake) as job:
    make_plan(
        job.input("rates"),
        job.input("published"),
        job.output("text"),
        job.output("csv"),
        config=job.config,
        counted=job.params.counted,
    )
