from oneshui.job import running
from oneshui.stages.attack import AttackFiles, attack_model

with running(snakemake) as job:
    paired = job.optional_input("paired_target")
    attack_model(
        AttackFiles(job.input("target"), job.inputs("references"), job.inputs("splits"), job.seed),
        job.output("attack"),
        dataset=job.dataset,
        n=job.n,
        row=job.params.row,
        spec=job.params.spec,
        paired=None
        if paired is None
        else AttackFiles(paired, job.inputs("paired_reference"), job.inputs("paired_splits"), job.params.paired_seed),
    )
