#!/usr/bin/env bash
# A study of vLLM on one GPU, in pieces of at most nine minutes, for a machine lent for half an hour.
#
#   benchmarks/h200/run.sh STUDY MODEL OUT
#
# STUDY is a TOML file here without its ending ("study-a"); MODEL a folder or hub id; OUT a folder that
# gets the study's results after each piece, as STUDY.tar.gz. The study itself goes on in the
# background between two pieces. Called again it waits on; on a fresh machine it goes on from
# OUT/STUDY.tar.gz. Python must find llmdyno and vllm. Exit status 0: done; 10: call again.
set -euo pipefail
study=$1 model=$2 out=$3
seconds=${PIECE_SECONDS:-540}
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-/tmp/llmdyno-h200}
folder=$work/$study
mkdir -p "$work" "$out"

keep() {
  tar -C "$work" -czf "$out/.$study.tar.gz" --exclude=server.log "$study" "$study.log" 2>/dev/null || true
  mv "$out/.$study.tar.gz" "$out/$study.tar.gz"
}

if [ ! -e "$folder" ] && [ -e "$out/$study.tar.gz" ]; then
  tar -C "$work" -xzf "$out/$study.tar.gz"
fi
if [ ! -e "$work/$study.pid" ] || ! kill -0 "$(cat "$work/$study.pid")" 2>/dev/null; then
  rm -f "$work/$study.status"
  if [ -e "$folder/ledger.jsonl" ]; then
    command=(python3 -m llmdyno tune --resume "$folder")
  else
    command=(python3 -m llmdyno tune "$here/$study.toml" --model "$model" --out "$folder")
  fi
  # Nothing of ours stays open in it: whoever reads our output would wait for the study's end.
  setsid bash -c '"$@" >>"$0.log" 2>&1; echo $? >"$0.status"' "$folder" "${command[@]}" \
    </dev/null >/dev/null 2>&1 &
  echo $! >"$work/$study.pid"
fi
for ((waited = 0; waited < seconds; waited += 3)); do
  [ -e "$work/$study.status" ] && break
  sleep 3
done
tail -n 40 "$work/$study.log"
keep
[ -e "$work/$study.status" ] || exit 10
echo "ended with status $(cat "$work/$study.status")"
