from oneshui.job import running
from oneshui.stages.data import pack_images

with running(snakemake) as job:
    pack_images(
        job.params.folder,
        job.input("index"),
        job.output("images"),
        stored_px=job.params.stored_px,
        n_threads=job.threads,
    )
