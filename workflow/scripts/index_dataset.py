from oneshui.forks import quick_start

with quick_start():
    from pathlib import Path

    from oneshui.job import running
    from oneshui.stages.index_dataset import index_dataset

with running(snakemake) as job:
    index_dataset(
        Path(job.params.folder),
        job.output("index"),
        dataset=job.dataset,
        spec=job.params.spec,
        n_threads=job.threads,
    )
