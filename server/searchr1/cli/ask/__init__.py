"""``searchr1 ask``: the answer on standard output and nothing else, the rest on standard error."""
