#!/usr/bin/env bash
# Several studies at once on a machine with several GPUs, each with a GPU and a share of the cores.
#
#   benchmarks/h200/side_by_side.sh MODEL OUT STUDY ...
#
# Each study is run.sh's, in pieces (PIECE_SECONDS), resumable, with caches of its own: two servers of
# one configuration would else compile into one folder at once. Exit status 0: all are done; 10: call
# again; 1: one has failed and the others are done.
set -uo pipefail
if (($# < 3)); then
  echo "usage: benchmarks/h200/side_by_side.sh MODEL OUT STUDY ..." >&2
  exit 2
fi
model=$1 out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
export WORK=${WORK:-/tmp/llmdyno-h200}
export CUDA_DEVICE_ORDER=PCI_BUS_ID    # so that GPU 2 is nvidia-smi's GPU 2
gpus=$(nvidia-smi -L | wc -l)
if (($# > gpus)); then
  echo "$# studies and $gpus GPUs: name at most $gpus studies." >&2
  exit 2
fi
# Neighbouring cores, both threads of a core in the same share.
mapfile -t cores < <(lscpu -p=cpu,core,node | grep -v '^#' | sort -t, -k3,3n -k2,2n -k1,1n | cut -d, -f1)
share=$((${#cores[@]} / $#))
pids=() number=0
for study in "$@"; do
  own=$(IFS=,; echo "${cores[*]:number * share:share}")
  cache=$WORK/cache-$study
  CUDA_VISIBLE_DEVICES=$number VLLM_CACHE_ROOT=$cache/vllm TRITON_CACHE_DIR=$cache/triton \
    TORCHINDUCTOR_CACHE_DIR=$cache/inductor \
    taskset -c "$own" "$here/run.sh" "$study" "$model" "$out" &
  pids+=($!)
  number=$((number + 1))
done
worst=0
for pid in "${pids[@]}"; do
  wait "$pid"
  status=$?
  if ((status == 10 || (status != 0 && worst == 0))); then worst=$status; fi
done
exit $worst
