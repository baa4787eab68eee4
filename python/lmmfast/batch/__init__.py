"""Many fits at once: of many responses to one design, of one model to many segments."""
