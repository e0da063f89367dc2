from oneshui.forks import quick_start

with quick_start():
    from pathlib import Path

    from oneshui.job import running
    from oneshui.stages.pack_images import pack_images

with running(snakemake) as job:
    pack_images(
        Path(job.params.folder),
        job.input("index"),
        job.output("images"),
        stored_px=job.params.stored_px,
        n_threads=job.threads,
    )
