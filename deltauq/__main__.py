"""`python -m deltauq`: the command line."""

from deltauq.cli import app

app(prog_name="deltauq")
