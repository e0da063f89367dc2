from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.select_hyperparameters import select_hyperparameters

with running(snakemake) as job:
    select_hyperparameters(job.inputs("trials"), job.output("ranking"))
