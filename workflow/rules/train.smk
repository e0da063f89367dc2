# Initial weights, and the original and retrained models. The original model serves every request size n.
# Data inputs are `ancient`: a newer time stamp alone never re-trains; whether a model fits the present data is
# checked by content wherever it is used (splits id in its header).


rule fetch_weights:
    output:
        weights="results/weights/{model}.safetensors",
    log:
        "results/logs/fetch_weights/{model}.log",
    wildcard_constraints:
        model=r"[\w.]+",
    localrule: True
    conda:
        "../../envs/torch.yaml"
    script:
        "../scripts/fetch_weights.py"


rule train_pretrain:
    input:
        index=ancient("results/data/{dataset}/index.parquet"),
        images=ancient("results/data/{dataset}/images.npy"),
        splits=ancient("results/splits/{dataset}/seed{seed}.parquet"),
        weights=ancient(runs.initial_weights),
    output:
        model=protected("results/models/{dataset}/seed{seed}/pretrain.safetensors"),
    log:
        "results/logs/train_pretrain/{dataset}/seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=growing(16000),
        runtime=growing(1440),
    params:
        spec=training_spec("pretrain"),
        model="pretrain",
    script:
        "../scripts/train_model.py"


use rule train_pretrain as train_retrain with:
    output:
        model=protected("results/models/{dataset}/n{n}/seed{seed}/retrain.safetensors"),
    log:
        "results/logs/train_retrain/{dataset}/n{n}/seed{seed}.log",
    params:
        spec=training_spec("retrain"),
        model="retrain",


use rule train_retrain as train_ceiling with:
    output:
        model=protected("results/models/{dataset}/n{n}/seed{seed}/ceiling.safetensors"),
    log:
        "results/logs/train_ceiling/{dataset}/n{n}/seed{seed}.log",
    params:
        spec=training_spec("ceiling"),
        model="ceiling",


use rule train_pretrain as train_fold with:
    output:
        model=protected(
            "results/models/{dataset}/seed{seed}/fold{fold}of{folds}.safetensors"
        ),
    log:
        "results/logs/train_fold/{dataset}/seed{seed}/{fold}of{folds}.log",
    params:
        spec=training_spec("fold{fold}of{folds}"),
        model="fold{fold}of{folds}",
