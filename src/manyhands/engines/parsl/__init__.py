"""The engine whose workers are those of a HighThroughputExecutor of Parsl's.

Empty: workers need a part of it, and none of what starts Parsl.
"""
