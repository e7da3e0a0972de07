"""fireprop alone: a module for each part, with `measure(data, quick)` -> values for JSON and `table(values)`."""
