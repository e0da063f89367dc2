from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.make_table import make_table

with running(snakemake) as job:
    make_table(
        job.inputs("metrics"),
        job.input("published"),
        next(iter(job.inputs("attacks")), None),
        job.output("csv"),
        job.output("tidy"),
        job.output("markdown"),
        job.output("latex"),
        name=job.wildcard("table"),
        spec=job.params.spec,
        seeds=list(job.params.seeds),
        data_methods=list(job.params.data_methods),
    )
