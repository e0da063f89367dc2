from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.render_faces import render_faces

with running(snakemake) as job:
    render_faces(job.output("marker"), layout=job.params.layout, spec=job.params.spec)
