"""An industrial example: SmolLM2-135M, pruned and distilled for the documentation of a machine control."""
