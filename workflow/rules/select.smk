# Choosing hyper-parameters as a practitioner could: simulated requests and validation images only (docs/selection.md).


rule try_hyperparameters:
    input:
        model="results/models/{dataset}/seed{seed}/pretrain.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
        folds=runs.fold_models,
    output:
        trials="results/selection/{dataset}/n{n}/seed{seed}/{method}.csv",
    log:
        "results/logs/try_hyperparameters/{dataset}/n{n}/seed{seed}/{method}.log",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=growing(16000),
        runtime=growing(1440),
    params:
        spec=runs.method_spec,
        grid=lookup(dpath="selection/grids/{method}", within=config),
        n_requests=lookup(dpath="selection/requests", within=config),
    script:
        "../scripts/try_hyperparameters.py"


rule select_hyperparameters:
    input:
        trials=expand(
            "results/selection/{{dataset}}/n{{n}}/seed{seed}/{{method}}.csv",
            seed=lookup(dpath="selection/seeds", within=config),
        ),
    output:
        ranking="results/selection/{dataset}/n{n}/{method}.csv",
    log:
        "results/logs/select_hyperparameters/{dataset}/n{n}/{method}.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    script:
        "../scripts/select_hyperparameters.py"
