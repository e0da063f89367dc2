from oneshui.job import running
from oneshui.stages.identities import measure_identities

with running(snakemake) as job:
    measure_identities(
        job.input("scores"),
        job.input("pretrain"),
        job.input("retrain"),
        job.input("features"),
        job.input("splits"),
        job.input("index"),
        job.output("identities"),
        dataset=job.dataset,
        n=job.n,
        seed=job.seed,
        row=job.params.row,
        max_reference=job.params.max_reference,
    )
