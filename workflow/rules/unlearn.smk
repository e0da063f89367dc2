# Both sides of the discard line. precompute_artefact sees the data; unlearn sees a model, a request and an artefact,
# and its process can open nothing else. unlearn_with_data is for reference methods, which no request can be served with.


rule precompute_artefact:
    input:
        model=model_of_origin,
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        artefact="results/artefacts/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors",
    log:
        "results/logs/precompute_artefact/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    benchmark:
        "results/benchmarks/precompute_artefact/{dataset}/n{n}/seed{seed}/{origin}/{method}.tsv"
    wildcard_constraints:
        method=one_of(that_need("artefact")),
        origin="pretrain|retrain",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=16000,
        runtime=480,
    params:
        # the others are read in the script: they change nothing in the artefact
        depends_on=spec_of_artefact,
    script:
        "../scripts/precompute_artefact.py"


rule unlearn:
    input:
        model=model_of_origin,
        request=request_of,
        artefact=artefact_of,
    output:
        model=kept(
            "results/unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors"
        ),
    log:
        "results/logs/unlearn/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    benchmark:
        "results/benchmarks/unlearn/{dataset}/n{n}/seed{seed}/{origin}/{method}.tsv"
    wildcard_constraints:
        method=one_of(that_need("artefact", "nothing")),
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=16000,
        runtime=60,
    params:
        spec=spec_of_method,
    script:
        "../scripts/unlearn.py"


rule unlearn_with_data:
    input:
        model=model_of_origin,
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        model=kept(
            "results/unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors"
        ),
    log:
        "results/logs/unlearn_with_data/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    benchmark:
        "results/benchmarks/unlearn_with_data/{dataset}/n{n}/seed{seed}/{origin}/{method}.tsv"
    wildcard_constraints:
        method=one_of(that_need("data")),
        origin="pretrain|retrain",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=16000,
        runtime=480,
    params:
        spec=spec_of_method,
    script:
        "../scripts/unlearn_with_data.py"
