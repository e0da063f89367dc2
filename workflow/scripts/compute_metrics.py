from oneshui.job import running
from oneshui.stages.measure import compute_metrics

with running(snakemake) as job:
    compute_metrics(
        job.input("scores"),
        job.input("splits"),
        job.input("index"),
        job.input("retrain"),
        job.output("metrics"),
        dataset=job.dataset,
        n=job.n,
        seed=job.seed,
        row=job.params.row,
    )
