"""The numbers as text and pictures.

tables.py         the summary's parts as Markdown tables
markdown.py       `quality.md`
in_short.py       its first lines: what the advice is worth, where it wins and loses
meta.py           `meta.md`: meta mode against the frozen network
panels.py         grids of learning curves and of learning rates
verdicts.py       the forest plot, and wins, ties and losses as a heat map
style.py          colours, sizes and the file format that the pictures share
write.py          the report as files
"""
