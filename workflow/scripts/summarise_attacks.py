from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.summarise_attacks import summarise_attacks

with running(snakemake) as job:
    summarise_attacks(job.inputs("attacks"), job.output("summary"), seeds=list(job.params.seeds))
