#!/usr/bin/env bash
# A gate for pull requests: measure a server, compare with the last run of the main branch.
#
#   gate.sh baseline FOLDER          measure, and keep the run as the baseline (on the main branch)
#   gate.sh check    FOLDER OUTPUT   measure into OUTPUT/run, compare with the baseline of FOLDER
#
# It ends with 0 if nothing became worse by more than DYNO_FAIL_ON allows, with 1 if something did,
# with 2 where it is called wrongly, with 3 where nothing could be measured or compared: a gate that
# compared nothing has not passed.
#
#   DYNO_URL       the server                          http://127.0.0.1:8000
#   DYNO_START     a command that starts it here; empty: it runs elsewhere already
#   DYNO_WAIT_S    how long it may take to answer      600
#   DYNO_LOAD      flags of the load, for dyno bench   -c 10,50 --duration 1m --repeat 3
#   DYNO_FAIL_ON   what counts as worse                token_rate:-5%,ttft:p99:+10%
#   DYNO_API_KEY   the server's key, if it wants one
set -euo pipefail

url=${DYNO_URL:-http://127.0.0.1:8000}
wait_s=${DYNO_WAIT_S:-600}
fail_on=${DYNO_FAIL_ON:-token_rate:-5%,ttft:p99:+10%}
read -r -a load <<<"${DYNO_LOAD:--c 10,50 --duration 1m --repeat 3}"
key=()
if [ -n "${DYNO_API_KEY:-}" ]; then key=(--api-key-env DYNO_API_KEY); fi

stop() { if [ -n "${server:-}" ]; then kill "$server" 2>/dev/null && wait "$server" || true; fi; }
trap stop EXIT

start() {
    if [ -z "${DYNO_START:-}" ]; then return; fi
    bash -c "exec $DYNO_START" >&2 &
    server=$!
}

await() {
    local end=$((SECONDS + wait_s))
    until dyno chat --url "$url" "${key[@]}" --max-tokens 1 <<<"Hello" >/dev/null 2>&1; do
        if [ -n "${server:-}" ] && ! kill -0 "$server" 2>/dev/null; then
            echo "gate: the server has ended: $DYNO_START" >&2
            exit 3
        fi
        if [ "$SECONDS" -ge "$end" ]; then
            echo "gate: $url has not answered in $wait_s s" >&2
            exit 3
        fi
        sleep 1
    done
}

measure() { # FOLDER: a missed SLO (status 1) is a result, too; anything else is none
    rm -rf "$1" # of a job that was stopped: a run is written into no folder that holds one
    start
    await
    local status=0
    dyno bench --url "$url" "${key[@]}" "${load[@]}" --out "$1" >&2 || status=$?
    if [ "$status" -gt 1 ]; then
        echo "gate: nothing was measured (dyno bench ended with $status)" >&2
        exit 3
    fi
}

case "${1:-} $#" in
"baseline 2")
    measure "$2.new"
    rm -rf "$2"
    mv "$2.new" "$2"
    ;;
"check 3")
    if [ ! -d "$2" ]; then
        echo "gate: there is no baseline at $2: run 'gate.sh baseline $2' on the main branch" >&2
        exit 3
    fi
    mkdir -p "$3"
    measure "$3/run"
    status=0
    dyno compare "$2" "$3/run" --fail-on "$fail_on" --out "$3/compare.html" \
        --junit "$3/junit.xml" --markdown - >"$3/compare.md" || status=$?
    cat "$3/compare.md"
    if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$3/compare.md" >>"$GITHUB_STEP_SUMMARY"; fi
    exit "$status"
    ;;
*)
    echo "usage: gate.sh baseline FOLDER | gate.sh check FOLDER OUTPUT" >&2
    exit 2
    ;;
esac
