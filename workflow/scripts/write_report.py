"""Whatever a dataset's folders hold → one page."""

from discovla.experiments import Experiments
from discovla.report.page.render import write_report
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    experiments = Experiments.load(snakemake.config)
    for problem in write_report(experiments, snakemake.wildcards.dataset, snakemake.output[0]):
        print(problem)
