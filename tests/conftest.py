"""Settings of vLLM for every test of this process; they must stand before vLLM is imported."""

import os

# Tiny models: one thread is faster than two that wait for each other, above all beside a server on the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The engine runs inside the test process, where a test can reach its workers and nothing waits for a child to start.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
