"""Features of every checkpoint → their numbers, and which one each rule chooses."""

from discovla.report.selection import build_selection, tell, write_selection
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    selection = build_selection(snakemake.input[0])
    write_selection(selection, snakemake.output[0])
    print(tell(selection))
