from oneshui.forks import quick_start

with quick_start():
    from oneshui.job import running
    from oneshui.methods import reference_of
    from oneshui.stages.attack_model import AttackFiles, attack_model

with running(snakemake) as job:
    paired = None
    if job.params.paired_seed is not None:
        run = job.run.with_seed(job.params.paired_seed)
        references, splits = job.inputs("paired_reference"), job.inputs("paired_splits")
        paired = AttackFiles(job.input("paired_target"), references, splits, run)
    attack_model(
        AttackFiles(job.input("target"), job.inputs("references"), job.inputs("splits"), job.run),
        job.output("attack"),
        model=job.model,
        reference=reference_of(job.config["methods"], job.model),
        spec=job.params.spec,
        paired=paired,
    )
