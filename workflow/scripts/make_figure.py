from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.make_figure import make_figure

with running(snakemake) as job:
    make_figure(
        job.inputs("sources"),
        job.output("pdf"),
        job.output("png"),
        job.output("csv"),
        name=job.wildcard("figure"),
        spec=job.params.spec,
        rows=list(job.params.rows),
        seeds=list(job.params.seeds),
    )
