#!/usr/bin/env bash
# The ten wettest days of $WEATHER_JSONL, a file of JSON lines as the pipeline before this one has loaded it.
set -euo pipefail
export LC_ALL=C # the same sort order and decimal point on every machine

fail() { printf 'wettest-days: %s\n' "$1" >&2; exit 2; }

file=${WEATHER_JSONL:-}
[[ -n $file ]] || fail 'WEATHER_JSONL is not set; it must name a file of JSON lines'
[[ -f $file && -r $file ]] || fail "cannot read WEATHER_JSONL: $file"

# One record a line, its values as text: date and precipitation are all that is wanted. A day that was loaded again counts once.
days=$(sed -nE 's/.*"date": ?"([0-9]{4})\/([0-9]{2})\/([0-9]{2})".*"precipitation": ?"?([0-9.]+)"?.*/\1-\2-\3 \4/p' "$file" | sort -u)
[[ -n $days ]] || fail "no days in $file"

printf 'The wettest of %d days:\n' "$(wc -l <<<"$days")"
# All of it is read before the first ten are taken, so that nobody writes to a pipe that is closed.
sort -k2,2nr -k1,1 <<<"$days" | awk '
    NR == 1 { most = $2 }
    NR <= 10 {
        bar = ""
        for (i = 0; i < 40 * $2 / most; i++) bar = bar "▇"
        printf "%s %6.1f mm %s\n", $1, $2, bar
    }'
