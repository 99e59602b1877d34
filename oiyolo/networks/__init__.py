"""Darknet's file forms: networks (``.cfg``), their schedules and anchors, and weights.

Everything here works without a darknet: text and numbers in, text and numbers out.

==============  ==================================================================
``cfg``         the text form, changed without losing comments or order
``shapes``      what each layer gives on, and how many numbers a weights file holds
``lint``        what would go wrong in a training, before it does
``schedule``    batch, rate and length of a training
``anchors``     box sizes to start from, fitted to the dataset
``vocabulary``  the words that each line of darknet knows
``stock``       the published networks, written out
``builders``    those, our own and a user's, made to fit a dataset
``weights``     weights files, checked; pretrained ones, fetched
==============  ==================================================================
"""
