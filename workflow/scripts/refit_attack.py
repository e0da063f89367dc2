from oneshui.job import running
from oneshui.stages.refit import refit_attack

with running(snakemake) as job:
    refit_attack(
        job.input("features"),
        job.input("splits"),
        job.input("index"),
        job.output("refit"),
        dataset=job.dataset,
        n=job.n,
        seed=job.seed,
        row=job.params.row,
        spec=job.params.spec,
    )
