"""TensorRT-LLM's tables of knobs, its rules, and the commands of its build."""
