"""The command line of the package, run by `python -m deltauq`."""

from deltauq.cli import app

app(prog_name="deltauq")
