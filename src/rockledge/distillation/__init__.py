"""Distillation: a student learns the distribution of a teacher, by a subclass of transformers' Trainer."""
