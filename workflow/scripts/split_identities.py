from oneshui.job import running
from oneshui.stages.data import split_identities

with running(snakemake) as job:
    split_identities(job.input("index"), job.output("splits"), dataset=job.dataset, seed=job.seed, spec=job.params.spec)
