"""The paper's claim, tried at the small model's scale: connectors beside one another at equal data, seeds and steps.

variants.py   the YAML file: which models, which seeds, what they learn
poolings.py   connectors other than SAP
build.py      a variant's model, its encoder shared with all others
costs.py      FLOPs and time until an answer begins
runs.py       every variant with every seed, in several processes, each run once
results.py    what the runs found, with its spread
report.py     the table; plots.py: the pictures
"""
