"""Ways to run a network over batches: torch (CPU, CUDA), torch with fused layers (CPU) and OpenVINO (CPU).

What may come in: a torch module, where it shall run, and padded batches of token ids. What goes out: float32 arrays,
batch by batch and in order.
"""
