# Rows + metrics → what people read.


rule table:
    """One table of the paper, measured beside printed."""
    input:
        metrics_of,
    output:
        csv=report(
            "results/{dataset}/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"dataset": "{dataset}", "table": "{table}"},
        ),
        md="results/{dataset}/{table}.md",
        tex="results/{dataset}/{table}.tex",
    log:
        "logs/{dataset}/{table}.log",
    conda:
        "../../environment.yml"
    params:
        rows=table_labels,
    script:
        "../scripts/make_table.py"


rule row:
    """One row of a table on its own."""
    input:
        metrics_of,
    output:
        "results/{dataset}/{table}/{row}.json",
    log:
        "logs/{dataset}/{table}/{row}.log",
    conda:
        "../../environment.yml"
    params:
        row=row_labels,
    script:
        "../scripts/make_row.py"


rule figure:
    """One sweep of the paper's appendix, as numbers and as pictures."""
    input:
        metrics_of,
    output:
        csv="results/{dataset}/{figure}.csv",
        svg=report(
            "results/{dataset}/{figure}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"dataset": "{dataset}", "figure": "{figure}"},
        ),
        png="results/{dataset}/{figure}.png",
    log:
        "logs/{dataset}/{figure}.log",
    conda:
        "../../environment.yml"
    params:
        rows=table_labels,
    script:
        "../scripts/plot_figure.py"


rule grid:
    """Choose a method's settings on the validation split."""
    input:
        grid_features,
    output:
        "results/{dataset}/grid/{method}.csv",
    log:
        "logs/{dataset}/grid/{method}.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/make_grid.py"
