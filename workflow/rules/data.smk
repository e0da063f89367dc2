# Raw folder -> index, packed images, splits, requests.


rule render_faces:
    output:
        marker="results/raw/{dataset}/rendered.json",
    log:
        "results/logs/render_faces/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(
            name for name, entry in config["datasets"].items() if "synthetic" in entry
        ),
    conda:
        "../../envs/report.yaml"
    params:
        spec=lookup(dpath="datasets/{dataset}/synthetic", within=config),
        layout=lookup(dpath="datasets/{dataset}/layout", within=config),
    script:
        "../scripts/render_faces.py"


rule index_dataset:
    input:
        raw=raw_inputs,
    output:
        index="results/data/{dataset}/index.parquet",
    log:
        "results/logs/index_dataset/{dataset}.log",
    conda:
        "../../envs/report.yaml"
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        folder=lambda wildcards, input: raw_folder(wildcards),
        spec=index_spec,
    script:
        "../scripts/index_dataset.py"


rule pack_images:
    input:
        index="results/data/{dataset}/index.parquet",
    output:
        images="results/data/{dataset}/images.npy",
    log:
        "results/logs/pack_images/{dataset}.log",
    conda:
        "../../envs/report.yaml"
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        folder=lambda wildcards, input: raw_folder(wildcards),
        stored_px=lookup(dpath="datasets/{dataset}/stored_px", within=config),
    script:
        "../scripts/pack_images.py"


rule split_identities:
    input:
        index="results/data/{dataset}/index.parquet",
    output:
        splits="results/splits/{dataset}/seed{seed}.parquet",
    log:
        "results/logs/split_identities/{dataset}/seed{seed}.log",
    conda:
        "../../envs/report.yaml"
    params:
        spec=lookup(dpath="datasets/{dataset}/split", within=config),
    script:
        "../scripts/split_identities.py"


rule export_request:
    input:
        index="results/data/{dataset}/index.parquet",
        images="results/data/{dataset}/images.npy",
        splits="results/splits/{dataset}/seed{seed}.parquet",
    output:
        request="results/requests/{dataset}/n{n}/seed{seed}.parquet",
    log:
        "results/logs/export_request/{dataset}/n{n}/seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        wrong_photos=False,
    script:
        "../scripts/export_request.py"


# a control: does the photo matter?
use rule export_request as export_wrong_photos with:
    output:
        request="results/requests/{dataset}/n{n}/seed{seed}_wrong_photos.parquet",
    log:
        "results/logs/export_wrong_photos/{dataset}/n{n}/seed{seed}.log",
    params:
        wrong_photos=True,


rule check_dataset:
    input:
        raw=raw_files_there,
        published=os.path.join(RESOURCES, "datasets.yaml"),
    output:
        # temporary, so that it is looked at anew each time: images may change without their annotation files
        report=temp("results/data/{dataset}/check.md"),
    log:
        "results/logs/check_dataset/{dataset}.log",
    conda:
        "../../envs/report.yaml"
    threads: 8
    params:
        folder=lambda wildcards, input: raw_folder(wildcards),
        spec=runs.index_spec,
        layout=runs.published_layout,
    script:
        "../scripts/check_dataset.py"


rule check_data:
    input:
        expand("results/data/{dataset}/check.md", dataset=config["datasets"]),
    log:
        "results/logs/check_data.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    shell:
        "cat {input} | tee {log}"
