# Attacks: pure functions of scores and features, without torch and without a GPU.


rule attack_trained:
    input:
        unpack(runs.attack_inputs),
    output:
        attack="results/attacks/{dataset}/n{n}/seed{seed}/{trained}.parquet",
    log:
        "results/logs/attack_trained/{dataset}/n{n}/seed{seed}/{trained}.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=growing(4000),
    params:
        model="{trained}",
        spec=ATTACK,
        paired_seed=runs.paired_seed,
    script:
        "../scripts/attack_model.py"


use rule attack_trained as attack_unlearned with:
    output:
        attack="results/attacks/{dataset}/n{n}/seed{seed}/pretrain/{method}.parquet",
    log:
        "results/logs/attack_unlearned/{dataset}/n{n}/seed{seed}/pretrain/{method}.log",
    params:
        model="pretrain/{method}",
        spec=ATTACK,
        paired_seed=runs.paired_seed,


rule probe_trained:
    input:
        features=runs.features,
        index="results/data/{dataset}/index.parquet",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        refit="results/refit/{dataset}/n{n}/seed{seed}/{trained}.parquet",
    log:
        "results/logs/probe_trained/{dataset}/n{n}/seed{seed}/{trained}.log",
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=growing(4000),
    params:
        model="{trained}",
        spec=PROBE,
    script:
        "../scripts/probe_model.py"


use rule probe_trained as probe_unlearned with:
    output:
        refit="results/refit/{dataset}/n{n}/seed{seed}/pretrain/{method}.parquet",
    log:
        "results/logs/probe_unlearned/{dataset}/n{n}/seed{seed}/pretrain/{method}.log",
    params:
        model="pretrain/{method}",
        spec=PROBE,


rule summarise_attacks:
    input:
        attacks=results.attacks_of_table,
    output:
        summary="results/attacks/{table}.csv",
    log:
        "results/logs/summarise_attacks/{table}.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        seeds=SEEDS,
    script:
        "../scripts/summarise_attacks.py"
