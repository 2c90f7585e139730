"""Blocks of a file job on other processes and machines.

In comes a ``Work`` of ``files.jobs``, which can be sent, and the blocks of its job; out come their results in the order
of the blocks. Nothing here knows what a job does. Reading, writing and resuming stay with ``files.jobs`` in the process
that began the job, so the output is the file that one machine writes. What a work needs and one process may not hold is
held by others, in parts (``ray_parts``).
"""
