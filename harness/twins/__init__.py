"""Twins: miniatures of a candidate's architecture with random weights, for its whole pipeline.

`shrink` makes the miniature's config, `build` its weights and the reference logits, `pipeline`
trains, fuses, converts and compares.
"""
