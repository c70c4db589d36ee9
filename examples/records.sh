#!/usr/bin/env bash
# Climate records: daily rows of $WEATHER_FILE in, reports/records.md out; a summary and a chart go to the log.
set -euo pipefail
export LC_ALL=C # the same sort order and decimal point on every machine

fail() { printf 'records: %s\n' "$1" >&2; exit 2; }

file=${WEATHER_FILE:-}
[[ -n $file ]] || fail 'WEATHER_FILE is not set; it must name the CSV of daily weather'
[[ -f $file && -r $file ]] || fail "cannot read WEATHER_FILE: $file"

# The columns are read by position, so a file laid out otherwise would give figures that look right and are not.
IFS= read -r header <"$file" || true
[[ ${header%$'\r'} == date,precipitation,temp_max,temp_min,wind,weather ]] || fail "unexpected header in $file"

# Keeps the rows that can be trusted, in date order, with a running day number as a seventh field.
# A date that comes a second time is skipped too: a day counted twice would distort every total.
rows=$(awk -F, '
    function day_number(y, m, d) {
        if (m < 3) { y--; m += 12 } # a year that starts in March has its leap day at the end
        return 365 * y + int(y / 4) - int(y / 100) + int(y / 400) + int((153 * m - 457) / 5) + d
    }
    function is_valid(   i) {
        if (NF != 6 || $1 !~ /^[0-9][0-9][0-9][0-9]\/[0-9][0-9]\/[0-9][0-9]$/ || $6 !~ /^[a-z]+$/) return 0
        for (i = 2; i <= 5; i++) if ($i !~ /^-?[0-9]+([.][0-9]+)?$/) return 0
        y = substr($1, 1, 4); m = substr($1, 6, 2) + 0; d = substr($1, 9) + 0
        if (m < 1 || m > 12 || d < 1 || d > day_number(y, m + 1, 1) - day_number(y, m, 1)) return 0
        return $2 >= 0 && $3 >= $4 && $5 >= 0 && !seen[$1]++
    }
    { sub(/\r$/, ""); if (NR == 1 || $0 == "") next; read++ }
    !is_valid() { if (!skipped++) first = " (first: line " NR ")"; next }
    { gsub("/", "-", $1); print $1 "," $2 "," $3 "," $4 "," $5 "," $6 "," day_number(y, m, d) }
    END { printf "note: %d rows read, %d skipped as malformed%s\n", read, skipped, first | "cat >&2" }
' <"$file" | sort)
[[ -n $rows ]] || fail "no usable rows in $file"

# One line per year. A change is only worked out between two whole years that follow each other.
yearly=$(awk -F, '
    function put(   rain_change, mean_change) {
        mean = heat / days
        if (days >= 365 && last_days >= 365 && year == last_year + 1) {
            rain_change = sprintf("%+.1f", rain - last_rain); mean_change = sprintf("%+.1f", mean - last_mean)
        }
        printf "%d,%d,%d,%.1f,%s,%.1f,%s,%.1f\n", year, days, wet, rain, rain_change, mean, mean_change, wind / days
        last_year = year; last_days = days; last_rain = rain; last_mean = mean
    }
    substr($1, 1, 4) != year { if (days) put(); year = substr($1, 1, 4); days = wet = rain = heat = wind = 0 }
    { days++; wet += ($2 > 0); rain += $2; heat += ($3 + $4) / 2; wind += $5 }
    END { put() }' <<<"$rows")

# The longest run of wet ($1 = 1) or dry ($1 = 0) days; a missing day ends a run, as nobody knows what it was.
spell() {
    awk -F, -v wet="$1" '
        { hit = ($2 > 0) == wet }
        !hit || $7 != before + 1 { run = 0 }
        hit { if (!run++) { from = $1; sum = 0 } sum += $2 }
        run > best { best = run; start = from; end = $1; rain = sum }
        { before = $7 }
        END { if (best) printf "%d days, %s to %s, %.1f mm\n", best, start, end, rain; else print "none" }' <<<"$rows"
}

# Mean precipitation of each calendar month as bars, the highest 40 wide; in colour unless $1 says otherwise.
chart() {
    awk -F, -v plain="$1" '
        { m = substr($1, 6, 2) + 0; sum[m] += $2; if (!seen[substr($1, 1, 7)]++) years[m]++ }
        END {
            split("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", name, " ")
            for (m in sum) { mean[m] = sum[m] / years[m]; if (mean[m] > most) most = mean[m] }
            for (m = 1; m <= 12; m++) if (m in mean) {
                share = most ? mean[m] / most : 0
                bar = ""; for (i = 1; i <= 40 * share + 0.5; i++) bar = bar "█"
                if (plain == "") bar = "\033[" (share < 1 / 3 ? 33 : share < 2 / 3 ? 36 : 34) "m" bar "\033[0m"
                printf "%s %6.1f mm  %s\n", name[m], mean[m], bar
            }
        }' <<<"$rows"
}

# The first five days by column $2 in order $3 (of equals, the earlier) for the report; the very first for the log.
top() {
    sort -t, -k "$2,$2$3" -k 1,1 <<<"$rows" | awk -F, -v title="$1" -v c="$2" -v unit="$4" -v out="$md.$$" '
        NR == 1 {
            printf "%s day: %s %s on %s\n", title, $c, unit, $1
            printf "\n## %s days\n\n|   | Date       |  High |   Low | Precip. | Wind |\n", title >>out
            print "|--:|------------|------:|------:|--------:|-----:|" >>out
        }
        NR <= 5 { printf "| %d | %s | %5s | %5s | %7s | %4s |\n", NR, $1, $3, $4, $2, $5 >>out }'
}

# Written beside the final name and moved at the end: a reader never sees half a report.
md=reports/records.md; mkdir -p reports
trap 'rm -f "$md.$$"' EXIT
printf '# Climate records, %.10s to %.10s\n\nTemperatures in °C, precipitation in mm, wind in m/s.\n' \
    "$rows" "${rows##*$'\n'}" >"$md.$$" # a row starts with its date, ten characters long

while IFS=, read -r year days wet rain rain_change mean mean_change wind; do
    echo "$year: $wet wet days of $days, $rain mm${rain_change:+ ($rain_change)}," \
        "mean $mean °C${mean_change:+ ($mean_change)}, wind $wind m/s"
    sleep 0.2 # only so that somebody watching sees the lines arrive
done <<<"$yearly"

top Hottest 3 nr '°C'
top Coldest 4 n '°C'
top Wettest 2 nr mm
top Windiest 5 nr m/s
dry=$(spell 0) wet=$(spell 1)
printf 'Longest dry spell: %s\nLongest wet spell: %s\nMean precipitation by month:\n' "$dry" "$wet"
chart "${NO_COLOR:-}" # no-color.org: any value turns colour off

{
    printf '\n## Longest spells\n\nA wet day has any precipitation measured, a dry day none.\n\n'
    printf -- '- Dry: %s\n- Wet: %s\n\n## Year on year\n\n' "$dry" "$wet"
    echo '| Year | Days | Wet | Precip. | Change | Mean | Change | Wind |'
    echo '|-----:|-----:|----:|--------:|-------:|-----:|-------:|-----:|'
    awk -F, '{ printf "| %s | %4s | %3s | %7s | %6s | %4s | %6s | %4s |\n",
        $1, $2, $3, $4, $5, $6, $7, $8 }' <<<"$yearly"
    printf '\n## Mean precipitation by month\n\n```text\n%s\n```\n' "$(chart plain)"
} >>"$md.$$"
mv "$md.$$" "$md"
echo "wrote $md ($(($(wc -c <"$md"))) bytes)"
