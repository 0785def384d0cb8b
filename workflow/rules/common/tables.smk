# What tables, figures, comparisons and the report are made of.


def metrics_of(wildcards):
    """All metrics a table or figure needs, or one of its rows."""
    name = wildcards.get("table") or wildcards.get("figure")
    try:
        if "row" in wildcards.keys():
            rows = [EXPERIMENTS.row(wildcards.dataset, name, wildcards.row)]
        else:
            rows = EXPERIMENTS.rows(wildcards.dataset, name)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    return [path for row in rows for path in EXPERIMENTS.metrics_files(row)]


def compared_features(wildcards):
    """What the ranks of two rows of a table are made of."""
    try:
        rows = [
            EXPERIMENTS.row(wildcards.dataset, wildcards.table, name)
            for name in (wildcards.before, wildcards.after)
        ]
    except UserError as error:
        raise WorkflowError(str(error)) from None
    return [
        str(Path(path).parent / name)
        for row in rows
        for path in EXPERIMENTS.metrics_files(row)
        for name in ranked_files(row)
    ]


def ranked_files(row):
    """In a seed's folder: features, with the bank where it is needed, or every checkpoint's."""
    if row.selection != "last":
        return ["epochs", "selection.csv"]
    splits = ["test", "bank"] if row.post == "qbnorm" else ["test"]
    return [f"features.{split}.safetensors" for split in splits]


def report_parts(wildcards):
    """What the report page of a dataset is made of; it also shows whatever else is there."""
    folder = f"results/{wildcards.dataset}"
    try:
        pairs = compared(EXPERIMENTS, wildcards.dataset)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    names = reported_names(wildcards.dataset)
    names += [f"compare/{table}/{before}..{after}" for table, before, after in pairs]
    return [f"{folder}/{name}.csv" for name in names]


def grid_features(wildcards):
    """Validation features of every run that a method's grid asks for."""
    try:
        rows = EXPERIMENTS.grid(wildcards.dataset, wildcards.method)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    folder = f"results/{wildcards.dataset}/runs"
    return [
        f"{folder}/{row.row}/seed{seed}/features.val.safetensors"
        for row in rows
        for seed in EXPERIMENTS.seeds(wildcards.dataset)
    ]


def shown(row):
    """What a row shows besides its numbers."""
    return [
        row.row,
        row.label,
        row.recipe,
        row.protocol,
        row.implementation,
        row.selected_on,
        row.post,
        row.params_paper,
        row.paper,
        row.footnotes,
    ]


def table_labels(wildcards):
    """What a change of which makes a table or figure, and nothing else, again."""
    name = wildcards.get("table") or wildcards.get("figure")
    spec = EXPERIMENTS.tables.get(name) or EXPERIMENTS.figures[name]
    heads = [spec.get(key) for key in ("title", "metrics", "direction", "symbol")]
    return repr(
        [heads, [shown(row) for row in EXPERIMENTS.rows(wildcards.dataset, name)]]
    )


def row_labels(wildcards):
    return repr(
        shown(EXPERIMENTS.row(wildcards.dataset, wildcards.table, wildcards.row))
    )
