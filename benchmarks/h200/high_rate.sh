#!/usr/bin/env bash
# The client at a high rate: a study's winner, served from its bundle, under more users than the study had.
#
#   benchmarks/h200/high_rate.sh STUDY_FOLDER OUT
#
# Each level's summary says whether the client is to be believed, and sets its count of tokens beside
# the server's own. Prompts never repeat. Once with one process of the client, once with four.
set -euo pipefail
if (($# != 2)); then
  echo "usage: benchmarks/h200/high_rate.sh STUDY_FOLDER OUT" >&2
  exit 2
fi
study=$1 out=$2
mkdir -p "$out"
setsid sh "$study/bundle/serve.sh" </dev/null >"$out/server.log" 2>&1 &
server=$!
trap 'kill -TERM -- -$server 2>/dev/null || true' EXIT
for ((waited = 0; waited < 300; waited++)); do
  curl -sf http://127.0.0.1:8000/health >/dev/null && break
  kill -0 $server
  sleep 1
done
load() {
  local name=$1
  shift
  python3 -m llmdyno bench --url http://127.0.0.1:8000 --endpoint openai-chat --osl 256 \
    --unique --interval 5s --ramp 2s --out "$out/$name" "$@" >"$out/$name.log" 2>&1 || true
}
load warmup -c 200 --duration 6s --grace 0s --no-scrape --no-calibration --seed 9
load one -c 100,150,200 --duration 15s --grace 10s
load four -c 200,300 --duration 15s --grace 10s --workers 4 --seed 1
