from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.split_identities import split_identities

with running(snakemake) as job:
    split_identities(job.input("index"), job.output("splits"), run=job.run, spec=job.params.spec)
