from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.make_report import make_report

with running(snakemake) as job:
    files = {kind: dict(zip(names, job.inputs(kind), strict=True)) for kind, names in job.params.names.items()}
    make_report(
        **files,
        identities=job.inputs("identities"),
        splits=job.inputs("splits"),
        output=job.output("page"),
        config=job.config,
    )
