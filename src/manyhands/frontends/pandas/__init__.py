"""pandas' door: functions over rows, columns, elements, groups and windows run by workers, with pandas' own results."""
