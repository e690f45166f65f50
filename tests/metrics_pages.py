"""Pages of metrics as servers write them, for the tests of the cross-check.

They are written by hand from the names, labels and shapes in the servers' documentation and sources
(vLLM's "Production Metrics" and v1/metrics of 0.26 and 0.33, SGLang's observability/ of 0.5.23,
LMDeploy's metrics/loggers.py of 0.18, MLC-LLM's cpp/serve/metrics.cc, TGI's metrics reference,
TensorRT-LLM's metrics/collector.py, Triton's metrics.md with its TensorRT-LLM backend, BentoML's
"Metrics"); none was saved from a running server by us. Each stands for 100 requests more than the
page before, 10,000 output tokens, 30,000 input tokens, a mean TTFT of 200 ms.
"""

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 8.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="m"} {input}
vllm:prefix_cache_hits_total{engine="0",model_name="m"} {hits}
vllm:prompt_tokens_total{engine="0",model_name="m"} {input}
vllm:generation_tokens_total{engine="0",model_name="m"} {output} # {trace_id="a}b"} 1.0
vllm:num_preemptions_total{engine="0",model_name="m"} 0.0
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 0.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 0.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 0.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} {half}
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} {half}
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} {requests}
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} {requests}
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} {ttft}
vllm:request_queue_time_seconds_count{engine="0",model_name="m"} {requests}
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} {queue}
"""

SGLANG = """\
sglang:spec_accept_length{model_name="m",tp_rank="0"} 0.0
sglang:spec_accept_rate{model_name="m",tp_rank="0"} 0.0
sglang:num_running_reqs{model_name="m",tp_rank="0"} 8.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 2.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.25
sglang:prompt_tokens_total{model_name="m"} {input}
sglang:generation_tokens_total{model_name="m"} {output}
sglang:cached_tokens_total{cache_source="device",model_name="m"} {hits}
sglang:num_requests_total{model_name="m"} {requests}
sglang:time_to_first_token_seconds_sum{model_name="m"} {ttft}
sglang:time_to_first_token_seconds_count{model_name="m"} {requests}
sglang:queue_time_seconds_sum{model_name="m"} {queue}
sglang:queue_time_seconds_count{model_name="m"} {requests}
sglang:num_retracted_reqs{model_name="m",tp_rank="0"} 0.0
sglang:num_retracted_requests_total{model_name="m",tp_rank="0"} 0.0
"""

LMDEPLOY = """\
lmdeploy:num_api_requests_waiting{engine="0",model_name="m"} 9.0
lmdeploy:num_requests_running{engine="0",model_name="m"} 8.0
lmdeploy:num_requests_waiting{engine="0",model_name="m"} 2.0
lmdeploy:gpu_cache_usage_perc{engine="0",model_name="m"} 0.25
lmdeploy:prefix_cache_hit_rate{engine="0",model_name="m"} 0.5
lmdeploy:prompt_tokens_total{engine="0",model_name="m"} {input}
lmdeploy:generation_tokens_total{engine="0",model_name="m"} {output}
lmdeploy:request_success_total{engine="0",finished_reason="FINISH",model_name="m"} {half}
lmdeploy:request_success_total{engine="0",finished_reason="SUCCESS",model_name="m"} {half}
lmdeploy:request_generation_tokens_sum{engine="0",model_name="m"} {output}
lmdeploy:cached_tokens_total{engine="0",model_name="m"} {hits}
lmdeploy:iteration_tokens_total_sum{engine="0",model_name="m"} 4.0
lmdeploy:time_to_first_token_seconds_sum{engine="0",model_name="m"} {ttft}
lmdeploy:time_to_first_token_seconds_count{engine="0",model_name="m"} {requests}
lmdeploy:request_queue_time_seconds_sum{engine="0",model_name="m"} {queue}
lmdeploy:request_queue_time_seconds_count{engine="0",model_name="m"} {requests}
"""

MLC_LLM = """\
# NOTE: these metrics count token in the unit of serving model's tokenization

engine_prefill_time_sum\t2.5
engine_decode_time_sum\t60.25
prompt_tokens_sum\t{input}
completion_tokens_sum\t{output}
prefill_tokens_sum\t15000
decode_tokens_per_s\t166.0

# /last_finished_request
last_finished_request_prompt_tokens\t300
last_finished_request_completion_tokens\t100
last_finished_request_ttft_s\t0.2
"""

TENSORRT_LLM = """\
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 8.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 2.0
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.25
trtllm_prompt_tokens_total{engine_type="trtllm",model_name="m"} {input}
trtllm_generation_tokens_total{engine_type="trtllm",model_name="m"} {output}
trtllm_prompt_cached_tokens_total{engine_type="trtllm",model_name="m"} {hits}
trtllm_request_success_total{finished_reason="stop",model_name="m"} {requests}
trtllm_time_to_first_token_seconds_sum{model_name="m"} {ttft}
trtllm_time_to_first_token_seconds_count{model_name="m"} {requests}
trtllm_request_queue_time_seconds_sum{model_name="m"} {queue}
trtllm_request_queue_time_seconds_count{model_name="m"} {requests}
"""

TGI = """\
# TYPE tgi_queue_size gauge
tgi_queue_size 2

# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 8

tgi_request_success {requests}
tgi_request_generated_tokens_sum {output}
tgi_request_generated_tokens_count {requests}
tgi_request_input_length_sum {input}
tgi_request_queue_duration_sum {queue}
tgi_request_queue_duration_count {requests}
"""

# An ensemble of three models: each of them counts every request.
TRITON = """\
nv_inference_request_success{model="ensemble",version="1"} {requests}
nv_inference_request_success{model="preprocessing",version="1"} {requests}
nv_inference_request_success{model="tensorrt_llm",version="1"} {requests}
nv_inference_queue_duration_us{model="preprocessing",version="1"} 12
nv_inference_queue_duration_us{model="tensorrt_llm",version="1"} {queue_us}
nv_inference_first_response_histogram_ms_count{model="ensemble",version="1"} {requests}
nv_inference_first_response_histogram_ms_sum{model="ensemble",version="1"} {ttft_ms}
nv_llm_output_token_len_sum{model="tensorrt_llm",version="1"} {output}
nv_llm_input_token_len_sum{model="tensorrt_llm",version="1"} {input}
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 8
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm"} 0.25
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm"} 6239
"""

BENTOML = """\
bentoml_service_request_in_progress{endpoint="/generate",service_name="s"} 8.0
bentoml_service_request_total{endpoint="/generate",http_response_code="200"} {requests}
"""

PAGES = {
    "vllm": VLLM,
    "sglang": SGLANG,
    "lmdeploy": LMDEPLOY,
    "mlc-llm": MLC_LLM,
    "tensorrt-llm": TENSORRT_LLM,
    "tgi": TGI,
    "triton": TRITON,
    "bentoml": BENTOML,
}


def page(kind: str, *, hundreds: int, hits: int = 15_000, queue_s: float = 10.0) -> bytes:
    """Return a server's page after so many hundreds of requests."""
    values = {
        "requests": 100 * hundreds,
        "half": 50 * hundreds,
        "output": 1e4 * hundreds,
        "input": f"{3e4 * hundreds:e}",  # exporters write large counts in this way too
        "hits": hits * hundreds,
        "ttft": 20.0 * hundreds,
        "ttft_ms": 20_000 * hundreds,
        "queue": queue_s * hundreds,
        "queue_us": round(queue_s * 1e6) * hundreds,
    }
    text = PAGES[kind]
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text.encode()
