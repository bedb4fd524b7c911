"""What compression cost: functions over callables that turn tokens into logits. Knows no engine."""
