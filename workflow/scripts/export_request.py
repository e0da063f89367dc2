from oneshui.job import running
from oneshui.stages.data import export_request

with running(snakemake) as job:
    export_request(
        job.input("index"),
        job.input("images"),
        job.input("splits"),
        job.output("request"),
        n=job.n,
        wrong_photos=job.params.wrong_photos,
    )
