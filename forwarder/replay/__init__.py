"""Delivering again what a sink has had: the very batches, under the very tokens of the first delivery.

A batch is a function of the log, and which one is kept beside the group's offset (:mod:`forwarder.course`). So whoever
begins at a cut of that time makes the batches of that time, and a backend that has them drops the copy.
"""
