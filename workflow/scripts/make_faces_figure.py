from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.make_faces_figure import make_faces_figure

with running(snakemake) as job:
    make_faces_figure(
        job.inputs("identities"),
        job.inputs("splits"),
        job.input("images"),
        job.output("pdf"),
        job.output("png"),
        job.output("csv"),
        spec=job.params.spec,
    )
