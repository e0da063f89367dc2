# oneshui: contents page. Each rule file is one stage of docs/architecture.md; logic lives in src/oneshui.
import gc

from snakemake.utils import min_version

min_version("9.20")

# thousands of jobs are millions of objects that stay; looking through them for garbage took an eighth of planning
gc.set_threshold(100_000, 20, 20)


# a --configfile replaces the paper's grid; merging the two would mix their datasets and tables
if "datasets" not in config:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


# Snakemake's limit of jobs per second (seen in 9.27) starts one more timer whenever a job ends while others wait, and
# each timer looks at all of them every second: after some hundred jobs that takes a core. Local jobs need no limit.
onstart:
    if workflow.local_exec:
        if workflow.is_main_process:
            start_server()
        if hasattr(workflow.scheduler, "job_rate_limiter"):
            workflow.scheduler.job_rate_limiter = None


include: "workflow/rules/common.smk"


wildcard_constraints:
    dataset=one_of(config["datasets"]),
    method=one_of(config["methods"]),
    table=one_of(config["tables"]),
    figure=one_of(config["figures"]),
    n=r"\d+",
    seed=r"\d+",
    origin="pretrain|retrain|wrong_photos",
    trained="pretrain|retrain|ceiling",
    fold=r"\d+",
    folds=r"\d+",
    retrained="retrain|ceiling",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/unlearn.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/attack.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/plan.smk"


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,
