from typing import TYPE_CHECKING

from oneshui.log import log_to
from oneshui.stages.report_page import make_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with log_to(snakemake.log[0]):
    inputs, names = snakemake.input, snakemake.params.names
    make_report(
        tables=dict(zip(names["tables"], inputs.tables, strict=True)),
        attacks=dict(zip(names["attacks"], inputs.attacks, strict=True)),
        roc=dict(zip(names["roc"], inputs.roc, strict=True)),
        identities=list(inputs.identities),
        splits=list(inputs.splits),
        output=snakemake.output.page,
        config=snakemake.config,
    )
