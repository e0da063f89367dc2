# Tables and figures: pure functions of metric files and training histories; no torch.


rule make_table:
    input:
        unpack(table_inputs),
        published=os.path.join(RESOURCES, "paper", "published_results.csv"),
    output:
        csv=report(
            "results/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        tidy="results/tables/{table}_tidy.csv",
        markdown="results/tables/{table}.md",
        latex="results/tables/{table}.tex",
    log:
        "results/logs/make_table/{table}.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        spec=spec_of_table,
        seeds=SEEDS,
        data_methods=that_need("data"),
    script:
        "../scripts/make_table.py"


rule make_figure:
    input:
        sources=figure_inputs,
    output:
        pdf="results/figures/{figure}.pdf",
        png=report(
            "results/figures/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        csv="results/figures/{figure}.csv",
    log:
        "results/logs/make_figure/{figure}.log",
    wildcard_constraints:
        figure=one_of(figures_of(faces=False)),
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        spec=lookup(dpath="figures/{figure}", within=config),
        rows=rows_of_figure,
        seeds=SEEDS,
    script:
        "../scripts/make_figure.py"


# only on request, and in no report
rule make_faces_figure:
    input:
        unpack(faces_inputs),
    output:
        pdf="results/figures/{figure}.pdf",
        png="results/figures/{figure}.png",
        csv="results/figures/{figure}.csv",
    log:
        "results/logs/make_faces_figure/{figure}.log",
    wildcard_constraints:
        figure=one_of(figures_of(faces=True)),
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        spec=lookup(dpath="figures/{figure}", within=config),
    script:
        "../scripts/make_faces_figure.py"


rule make_report:
    input:
        unpack(report_inputs),
    output:
        page="results/report.html",
    log:
        "results/logs/make_report.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        names=names_of_report(),
        settings=SETTINGS,
    script:
        "../scripts/make_report.py"


rule report:
    input:
        "results/report.html",


rule tables:
    input:
        expand("results/tables/{table}.csv", table=config["tables"]),


rule figures:
    input:
        expand(
            "results/figures/{figure}.pdf",
            figure=[
                name
                for name, each in config["figures"].items()
                if each.get("show_faces", True)
            ],
        ),
