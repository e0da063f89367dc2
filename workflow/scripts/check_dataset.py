from oneshui.forks import quick_start

with quick_start():
    from pathlib import Path

    from oneshui.job import running
    from oneshui.stages.check_dataset import check_dataset

with running(snakemake) as job:
    check_dataset(
        Path(job.params.folder),
        job.input("published"),
        job.output("report"),
        dataset=job.dataset,
        layout=job.params.layout,
        spec=job.params.spec,
        n_threads=job.threads,
    )
