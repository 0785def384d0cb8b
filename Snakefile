# DiscoVLA (CVPR 2025) as one workflow: videos → frames → captions → training → evaluation → tables.
# Run from this folder, for example:  snakemake results/msrvtt/table1.csv --cores 8
from snakemake.utils import min_version

min_version("9.14")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/captions.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/demo.smk"


# On a cluster these run where Snakemake runs: seconds each, less than it takes to start a job.
localrules:
    all,
    demo,
    demo_all,
    check,
    annotations,
    run_config,
    row,
    table,
    figure,
    grid,
    selection,
    summary,
    report_page,


rule all:
    """Every table and figure of the paper, on the real datasets."""
    default_target: True
    input:
        paper_targets,


rule demo:
    """Tables 1, 5 and 9, one figure, a summary and the report page, on the embedded demo world."""
    input:
        demo_targets,


rule demo_all:
    """Every table and figure of the paper, on the embedded demo world."""
    input:
        demo_all_targets,


onerror:
    explain_failures(log)
