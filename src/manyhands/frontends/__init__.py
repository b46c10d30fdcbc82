"""Doors for programs that were written for other libraries: their interfaces, and our workers behind them."""
