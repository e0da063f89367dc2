from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.fetch_weights import fetch_weights

with running(snakemake) as job:
    # not a param: weights that are there are not fetched anew because they could be had elsewhere
    fetch_weights(job.wildcard("model"), job.output("weights"), weights_root=job.config["weights_root"])
