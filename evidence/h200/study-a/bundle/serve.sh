#!/bin/sh
exec dyno serve --engine vllm --front native --model /tmp/model-llama3-8b --set max_model_len=8192 --set gpu_memory_utilization=0.9 --set load_format=dummy --set dtype=bfloat16 --set max_num_seqs=306 --set max_num_batched_tokens=4445 --set api_server_count=6
