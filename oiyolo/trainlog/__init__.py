"""Darknet's training logs: text in, tables out.

``dialects`` knows the forms of the lines that the three lines of darknet print; ``parse`` turns
a log of any of them, whole or still growing, into tables. Both are pure but for the two
functions that read a log and write the metrics; neither needs darknet.
"""
