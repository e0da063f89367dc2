# One pass of every model over the images, then metrics, which need no GPU and no torch.


rule score_pretrain:
    input:
        model="results/models/{dataset}/seed{seed}/pretrain.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
    output:
        scores="results/scores/{dataset}/seed{seed}/pretrain.parquet",
    log:
        "results/logs/score_pretrain/{dataset}/seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=16000,
        runtime=60,
    script:
        "../scripts/score_model.py"


use rule score_pretrain as score_retrain with:
    input:
        model="results/models/{dataset}/n{n}/seed{seed}/retrain.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
    output:
        scores="results/scores/{dataset}/n{n}/seed{seed}/retrain.parquet",
    log:
        "results/logs/score_retrain/{dataset}/n{n}/seed{seed}.log",


use rule score_pretrain as score_unlearned with:
    input:
        model="results/unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
    output:
        scores="results/scores/{dataset}/n{n}/seed{seed}/{origin}/{method}.parquet",
    log:
        "results/logs/score_unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",


rule measure_pretrain:
    input:
        scores="results/scores/{dataset}/seed{seed}/pretrain.parquet",
        retrain="results/scores/{dataset}/n{n}/seed{seed}/retrain.parquet",
        index="results/data/{dataset}/index.parquet",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        metrics="results/metrics/{dataset}/n{n}/seed{seed}/pretrain.parquet",
    log:
        "results/logs/measure_pretrain/{dataset}/n{n}/seed{seed}.log",
    conda:
        "../../envs/report.yaml"
    params:
        origin="pretrain",
        method="pretrain",
    script:
        "../scripts/compute_metrics.py"


use rule measure_pretrain as measure_retrain with:
    input:
        scores="results/scores/{dataset}/n{n}/seed{seed}/retrain.parquet",
        retrain="results/scores/{dataset}/n{n}/seed{seed}/retrain.parquet",
        index="results/data/{dataset}/index.parquet",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        metrics="results/metrics/{dataset}/n{n}/seed{seed}/retrain.parquet",
    log:
        "results/logs/measure_retrain/{dataset}/n{n}/seed{seed}.log",
    params:
        origin="retrain",
        method="retrain",


use rule measure_pretrain as measure_unlearned with:
    input:
        scores="results/scores/{dataset}/n{n}/seed{seed}/{origin}/{method}.parquet",
        retrain="results/scores/{dataset}/n{n}/seed{seed}/retrain.parquet",
        index="results/data/{dataset}/index.parquet",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        metrics="results/metrics/{dataset}/n{n}/seed{seed}/{origin}/{method}.parquet",
    log:
        "results/logs/measure_unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    params:
        origin="{origin}",
        method="{method}",
