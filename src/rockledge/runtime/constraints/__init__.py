"""Answers of a given form: what a request may ask for, its bounds, and the grammar that draws keep to."""
