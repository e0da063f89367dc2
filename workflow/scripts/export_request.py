from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.stages.export_request import export_request

with running(snakemake) as job:
    export_request(job.data, job.output("request"), run=job.run, wrong_photos=job.params.wrong_photos)
