from oneshui.job import running
from oneshui.stages.data import index_dataset

with running(snakemake) as job:
    index_dataset(
        job.params.folder,
        job.output("index"),
        dataset=job.dataset,
        spec=job.params.spec,
        n_threads=job.threads,
    )
