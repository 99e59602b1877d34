"""A small Open Images of our own: drawn scenes, written in the official forms, served on loopback.

``catalogue`` holds the classes, ``pen``, ``things``, ``backdrop`` and ``scenes`` draw, ``write``
makes the files, ``serve`` hands them out. The pipeline reads the result with the very code that it
reads the real site with.
"""
