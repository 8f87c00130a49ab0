"""Pictures: functions of what the library returns to a matplotlib axis, without a display or pyplot."""
