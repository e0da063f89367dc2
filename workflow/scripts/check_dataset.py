from oneshui.job import running
from oneshui.stages.data import check_dataset, expected_counts

with running(snakemake) as job:
    check_dataset(
        job.params.folder,
        job.output("report"),
        dataset=job.dataset,
        spec=job.params.spec,
        expected=expected_counts(job.input("published"), job.params.layout),
        n_threads=job.threads,
    )
