from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.attack import AttackFiles, attack_model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    inputs, paired = snakemake.input, snakemake.params.paired_seed
    attack_model(
        AttackFiles(inputs.target, inputs.references, inputs.splits, int(snakemake.wildcards.seed)),
        snakemake.output.attack,
        dataset=snakemake.wildcards.dataset,
        n=int(snakemake.wildcards.n),
        row=snakemake.params.row,
        spec=snakemake.params.spec,
        paired=None
        if paired is None
        else AttackFiles(inputs.paired_target, [inputs.paired_reference], [inputs.paired_splits], paired),
    )
