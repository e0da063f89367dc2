# Both sides of the discard line. precompute_* see the data; unlearn sees a model, a request and an artefact,
# and its process can open nothing else. unlearn_with_data is for reference methods, which no request can be served with.


rule precompute_artefact:
    input:
        model=runs.start_model,
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
        folds=runs.fold_models,
    output:
        artefact="results/artefacts/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors",
    log:
        "results/logs/precompute_artefact/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    wildcard_constraints:
        method=one_of(methods_that_keep(config, every_n=False)),
        origin="pretrain|retrain",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=growing(16000),
        runtime=growing(480),
    params:
        # the others are read in the script: they change nothing in the artefact
        depends_on=runs.artefact_spec,
    script:
        "../scripts/precompute_artefact.py"


# Nothing asks it for an artefact of a retrained model: such a method would leave that model as it is.
use rule precompute_artefact as precompute_for_every_n with:
    output:
        artefact="results/artefacts/{dataset}/seed{seed}/{origin}/{method}.safetensors",
    log:
        "results/logs/precompute_for_every_n/{dataset}/seed{seed}/{origin}/{method}.log",
    wildcard_constraints:
        method=one_of(methods_that_keep(config, every_n=True)),
        origin="pretrain",


rule unlearn:
    input:
        model=runs.start_model,
        request=runs.request,
        artefact=runs.artefact,
    output:
        model=kept(
            "results/unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors"
        ),
    log:
        "results/logs/unlearn/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    wildcard_constraints:
        method=one_of(methods_that_need(config, "artefact", "nothing")),
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=growing(16000),
        runtime=growing(60),
    params:
        spec=runs.method_spec,
    script:
        "../scripts/unlearn.py"


rule unlearn_with_data:
    input:
        model=runs.start_model,
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        model=kept(
            "results/unlearned/{dataset}/n{n}/seed{seed}/{origin}/{method}.safetensors"
        ),
    log:
        "results/logs/unlearn_with_data/{dataset}/n{n}/seed{seed}/{origin}/{method}.log",
    wildcard_constraints:
        method=one_of(methods_that_need(config, "data")),
        origin="pretrain|retrain",
    conda:
        "../../envs/torch.yaml"
    threads: THREADS
    resources:
        gpu=GPUS,
        mem_mb=growing(16000),
        runtime=growing(480),
    params:
        spec=runs.method_spec,
    script:
        "../scripts/unlearn_with_data.py"
