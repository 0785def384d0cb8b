"""A dataset's files, videos and weights → check.json, or one message with all that is missing."""

from discovla.data.checks.page import page
from discovla.data.configured import check_configured, judge_configured
from discovla.experiments import Experiments
from discovla.scripting import logged_to
from discovla.storage.files import write_record

with logged_to(snakemake.log[0]):
    experiments = Experiments.load(snakemake.config)
    report = check_configured(experiments, snakemake.wildcards.dataset)
    print(page(report))
    write_record(snakemake.output[0], judge_configured(experiments, report))
