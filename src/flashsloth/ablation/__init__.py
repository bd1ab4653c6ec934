"""The paper's claim, tried at the small model's scale: connectors beside one another at equal data, seeds and steps.

variants.py   the YAML file: which models, which seeds, what they learn; connectors other than SAP; a variant's model
run.py        every variant with every seed, in several processes, each run once; FLOPs and time until an answer begins
report.py     what the runs found, with its spread: the table and the plots
"""
