# One pass of every model over the images, then metrics, which need no GPU and no torch.


rule score_pretrain:
    input:
        model="results/models/{dataset}/seed{seed}/pretrain.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        scores="results/scores/{dataset}/seed{seed}/pretrain.parquet",
        features="results/features/{dataset}/seed{seed}/pretrain.parquet",
    log:
        "results/logs/score_pretrain/{dataset}/seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=growing(16000),
        runtime=growing(60),
    params:
        queries=ATTACK_QUERIES,
    script:
        "../scripts/score_model.py"


use rule score_pretrain as score_retrained with:
    input:
        model="results/models/{dataset}/n{n}/seed{seed}/{retrained}.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        scores="results/scores/{dataset}/n{n}/seed{seed}/{retrained}.parquet",
        features="results/features/{dataset}/n{n}/seed{seed}/{retrained}.parquet",
    log:
        "results/logs/score_retrained/{dataset}/n{n}/seed{seed}/{retrained}.log",


use rule score_pretrain as score_unlearned with:
    input:
        model="results/unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        scores="results/scores/{dataset}/n{n}/seed{seed}/{origin}/{method}.parquet",
        features=kept(
            "results/features/{dataset}/n{n}/seed{seed}/{origin}/{method}.parquet"
        ),
    log:
        "results/logs/score_unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",


rule measure_trained:
    input:
        scores=runs.scores,
        retrain="results/scores/{dataset}/n{n}/seed{seed}/retrain.parquet",
        index="results/data/{dataset}/index.parquet",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        metrics="results/metrics/{dataset}/n{n}/seed{seed}/{trained}.parquet",
    log:
        "results/logs/measure_trained/{dataset}/n{n}/seed{seed}/{trained}.log",
    conda:
        "../../envs/report.yaml"
    params:
        model="{trained}",
    script:
        "../scripts/measure_model.py"


use rule measure_trained as measure_unlearned with:
    output:
        metrics="results/metrics/{dataset}/n{n}/seed{seed}/{origin}/{method}.parquet",
    log:
        "results/logs/measure_unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    params:
        model="{origin}/{method}",


rule measure_identities:
    input:
        scores="results/scores/{dataset}/n{n}/seed{seed}/pretrain/{method}.parquet",
        pretrain="results/scores/{dataset}/seed{seed}/pretrain.parquet",
        retrain="results/scores/{dataset}/n{n}/seed{seed}/retrain.parquet",
        features="results/features/{dataset}/seed{seed}/pretrain.parquet",
        index="results/data/{dataset}/index.parquet",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        identities="results/identities/{dataset}/n{n}/seed{seed}/pretrain/{method}.parquet",
    log:
        "results/logs/measure_identities/{dataset}/n{n}/seed{seed}/pretrain/{method}.log",
    conda:
        "../../envs/report.yaml"
    params:
        model="pretrain/{method}",
        max_reference=lookup(dpath="attack/max_reference", within=config),
    script:
        "../scripts/measure_identities.py"


rule trace_trained:
    input:
        model=runs.weights,
        original="results/models/{dataset}/seed{seed}/pretrain.safetensors",
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        traces="results/traces/{dataset}/n{n}/seed{seed}/{trained}.parquet",
    log:
        "results/logs/trace_trained/{dataset}/n{n}/seed{seed}/{trained}.log",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=growing(16000),
        runtime=growing(60),
    params:
        model="{trained}",
        spec=PROBE,
    script:
        "../scripts/trace_model.py"


use rule trace_trained as trace_unlearned with:
    output:
        traces="results/traces/{dataset}/n{n}/seed{seed}/pretrain/{method}.parquet",
    log:
        "results/logs/trace_unlearned/{dataset}/n{n}/seed{seed}/pretrain/{method}.log",
    params:
        model="pretrain/{method}",
        spec=PROBE,
