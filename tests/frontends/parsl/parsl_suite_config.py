"""What Parsl's tests are run with: their ``--config``."""

import parsl

import manyhands as mh

config = parsl.Config(executors=[mh.ParslExecutor(workers=2)], strategy="none")
