#!/usr/bin/env bash
# A study of vLLM on one GPU, in pieces of at most nine minutes, for a machine lent for half an hour.
#
#   benchmarks/h200/run.sh STUDY MODEL OUT
#
# STUDY is a TOML file here without its ending ("study-a"); MODEL a folder or hub id; OUT a folder that
# gets what is new after each piece, as STUDY-01.tar.xz, STUDY-02.tar.xz ...: unpack them in order. The
# study itself goes on in the background between two pieces. Called again it waits on; on a fresh
# machine it goes on from what is in OUT. Python must find llmdyno and vllm. Exit status 0: done;
# 10: call again; 1: the study failed.
set -euo pipefail
if (($# != 3)); then
  echo "usage: benchmarks/h200/run.sh STUDY MODEL OUT" >&2
  exit 2
fi
study=$1 model=$2 out=$3
seconds=${PIECE_SECONDS:-540}
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-/tmp/llmdyno-h200}
folder=$work/$study
packed=$work/$study.packed    # its date: when the last piece was packed; what is in it: its number
mkdir -p "$work" "$out"

keep() {
  local number=$(($(cat "$packed" 2>/dev/null || echo 0) + 1)) newer=()
  [ -e "$packed" ] && newer=(-newer "$packed")
  echo $number >"$packed.next"
  # Servers' logs are long; a warm-up counts for nothing. tar minds that the study goes on meanwhile.
  (cd "$work" && find "$study" "$study.log" -type f ! -name server.log ! -path '*/warmup/*' \
    "${newer[@]}" -print0 | nice tar --null -T - -cf - | nice xz -2 -T2 >"$out/.$study.part") || true
  mv "$out/.$study.part" "$out/$study-$(printf %02d "$number").tar.xz"
  mv "$packed.next" "$packed"
}

if [ ! -e "$folder" ]; then
  for piece in "$out/$study"-[0-9][0-9].tar.xz; do
    [ -e "$piece" ] || continue
    tar -C "$work" -xJf "$piece"
    basename "${piece%.tar.xz}" | grep -o '[0-9][0-9]$' | sed 's/^0//' >"$packed"
  done
fi
if [ ! -e "$work/$study.status" ] &&
  { [ ! -e "$work/$study.pid" ] || ! kill -0 "$(cat "$work/$study.pid")" 2>/dev/null; }; then
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
keep
tail -n "${LOG_LINES:-40}" "$work/$study.log"
[ -e "$work/$study.status" ] || exit 10
status=$(cat "$work/$study.status")
echo "$study ended with status $status"
# Without the packages that draw charts a study ends with status 3 once its document is written.
if [ "$status" != 0 ] && ! grep -q "page cannot be drawn" "$work/$study.log"; then
  rm "$work/$study.status"    # called again, it is tried again
  exit 1
fi
