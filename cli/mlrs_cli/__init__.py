"""The `mlrs` command. The one room that knows all the others; it holds no logic of its own."""
