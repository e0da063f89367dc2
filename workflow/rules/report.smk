# Tables and figures: pure functions of metric files and training histories; no torch.


rule make_table:
    input:
        unpack(results.table_inputs),
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
        spec=results.table_spec,
        seeds=SEEDS,
        data_methods=methods_that_need(config, "data"),
    script:
        "../scripts/make_table.py"


rule make_figure:
    input:
        sources=results.figure_inputs,
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
        figure=one_of(results.figures(faces=False)),
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        spec=results.figure_spec,
        rows=results.figure_rows,
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
        figure=one_of(results.figures(faces=True)),
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        spec=lookup(dpath="figures/{figure}", within=config),
    script:
        "../scripts/make_faces_figure.py"


rule make_report:
    input:
        unpack(results.report_inputs),
    output:
        page="results/report.html",
    log:
        "results/logs/make_report.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        names=results.report_names(),
        settings=SETTINGS,
    script:
        "../scripts/make_report.py"


# Targets name what lies behind tables and pages, too: Snakemake makes a file that is missing on the way to one that is
# there only if a target asks for it.
rule tables:
    input:
        expand("results/tables/{table}.csv", table=config["tables"]),
        results.measured(),


rule figures:
    input:
        expand("results/figures/{figure}.pdf", figure=results.figures_to_draw()),


rule report:
    input:
        rules.tables.input,
        results.report_inputs()["identities"],
        "results/report.html",
