# What the tables cost before anything runs: jobs, trainings, hours and disk space by stage.


rule make_plan:
    input:
        rates=os.path.join(RESOURCES, "rates.csv"),
        published=os.path.join(RESOURCES, "datasets.yaml"),
    output:
        text="results/plan.txt",
        csv="results/plan.csv",
    log:
        "results/logs/make_plan.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        counted=counted_datasets,
        settings=SETTINGS,
    script:
        "../scripts/make_plan.py"


# no output, so that it is printed each time
rule plan:
    input:
        "results/plan.txt",
    log:
        "results/logs/plan.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    shell:
        "cat {input} | tee {log}"
