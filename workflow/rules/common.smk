# What the rules share: the experiments, the wildcards, and (in common/) every input function.
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from discovla.errors import UserError
from discovla.experiments import Experiments, ID, POSTS, SELECTIONS
from discovla.storage.files import read_record
from discovla.report.parts import compared, reported

# Jobs must find the Python that runs Snakemake, also when no environment is activated, and this
# repository's package, also from another working directory or in an environment of their own.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    PYTHONPATH=os.pathsep.join(
        filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")])
    ),
)

# A cluster sends SIGTERM to every process of a job. The shell waits for its command, which saves
# and ends; otherwise the job would count as ended, and what still saves would be killed.
shell.prefix("trap : TERM; set -euo pipefail; ")

try:
    EXPERIMENTS = Experiments.load(config)
except UserError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset="|".join(map(re.escape, EXPERIMENTS.datasets)),
    table="|".join(map(re.escape, EXPERIMENTS.tables)),
    figure="|".join(map(re.escape, EXPERIMENTS.figures)),
    row="[a-z0-9][a-z0-9_.-]*",
    run_id=ID,
    frames_id="[0-9a-f]{10}",
    captions_id="[0-9a-f]{10}",
    shard=r"\d+-of-\d+",
    seed=r"\d+",
    split="test|val|bank",
    post="|".join(POSTS),
    selection="|".join(SELECTIONS[1:]),
    method="|".join(EXPERIMENTS.methods),
    before="[a-z0-9][a-z0-9_-]*",
    after="[a-z0-9][a-z0-9_-]*",
    picture="svg|png",


include: "common/targets.smk"
include: "common/data.smk"
include: "common/captions.smk"
include: "common/runs.smk"
include: "common/tables.smk"
include: "common/machine.smk"
