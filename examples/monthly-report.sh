#!/usr/bin/env bash
# Monthly weather report: daily rows of $WEATHER_FILE in, reports/monthly.csv and reports/monthly.md out.
set -euo pipefail
export LC_ALL=C # the same sort order and decimal point on every machine

fail() { printf 'monthly-report: %s\n' "$1" >&2; exit 2; }

file=${WEATHER_FILE:-}
[[ -n $file ]] || fail 'WEATHER_FILE is not set; it must name the CSV of daily weather'
[[ -f $file && -r $file ]] || fail "cannot read WEATHER_FILE: $file"

# The columns are read by position, so a file laid out otherwise would give figures that look right and are not.
IFS= read -r header <"$file" || true
[[ ${header%$'\r'} == date,precipitation,temp_max,temp_min,wind,weather ]] || fail "unexpected header in $file"

# Keeps the rows that can be trusted, in date order, dates written as 2012-01-31.
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
    { gsub("/", "-", $1); print $1 "," $2 "," $3 "," $4 "," $5 "," $6 }
    END { printf "note: %d rows read, %d skipped as malformed%s\n", read, skipped, first | "cat >&2" }
' <"$file" | sort)
[[ -n $rows ]] || fail "no usable rows in $file"

years=$(cut -d- -f1 <<<"$rows" | sort -u)
kinds=$(cut -d, -f6 <<<"$rows" | sort -u | paste -s -d ' ' -) # the weather kinds that occur, one column each
names='January February March April May June July August September October November December'

# Daily rows in, one CSV line per period out: the first $1 characters of a date are its month (7) or year (4).
summarise() {
    awk -F, -v width="$1" -v kinds="$kinds" '
        function put(   i) {
            printf "%s,%d,%.1f,%.1f,%.1f,%.1f,%.1f", period, days, rain, mean / days, low, high, wind / days
            for (i = 1; i <= n; i++) printf ",%d", count[kind[i]]
            print ""
        }
        BEGIN { n = split(kinds, kind, " ") }
        substr($1, 1, width) != period {
            if (days) put()
            period = substr($1, 1, width); days = rain = mean = wind = 0; low = $4; high = $3; split("", count)
        }
        {
            days++; rain += $2; mean += ($3 + $4) / 2; wind += $5; count[$6]++
            if ($4 < low) low = $4
            if ($3 > high) high = $3
        }
        END { put() }'
}

# CSV lines in, a Markdown table out, padded so that it reads well as plain text too.
table() {
    awk -F, -v kinds="$kinds" -v names="$names" '
        BEGIN {
            split(names, name, " "); n = split("Days Precip. Mean Min Max Wind " kinds, column, " ")
            head = "| Month     |"; rule = "|-----------|"
            for (i = 1; i <= n; i++) { head = head sprintf(" %7s |", column[i]); rule = rule "--------:|" }
            print head; print rule
        }
        {
            printf "| %-9s |", (length($1) == 4) ? "Year" : name[substr($1, 6) + 0]
            for (i = 2; i <= NF; i++) printf " %7s |", $i
            print ""
        }'
}

# Months and then the year in, one line for the log out.
headline() {
    awk -F, -v names="$names" '
        BEGIN { split(names, name, " ") }
        length($1) == 4 { year = $1; days = $2; rain = $3; next }
        { month = name[substr($1, 6) + 0] }
        wet == "" || $3 > most { wet = month; most = $3 }
        warm == "" || $4 > top { warm = month; top = $4 }
        END { printf "%s: %d days, %.1f mm; wettest %s (%.1f mm), warmest %s (mean %.1f °C)\n",
            year, days, rain, wet, most, warm, top }'
}

# Written beside the final names and moved at the end: a reader never sees half a report.
mkdir -p reports
csv=reports/monthly.csv md=reports/monthly.md
trap 'rm -f "$csv.$$" "$md.$$"' EXIT
echo "year_month,days,precipitation_mm,temp_mean_c,temp_min_c,temp_max_c,wind_mean_ms,${kinds// /_days,}_days" >"$csv.$$"
printf '# Weather by month\n\nPrecipitation in mm, temperatures in °C, wind in m/s, then days by weather.\n' >"$md.$$"

for year in $years; do
    daily=$(grep "^$year-" <<<"$rows")
    months=$(summarise 7 <<<"$daily")
    total=$(summarise 4 <<<"$daily")
    echo "$months" >>"$csv.$$"
    { printf '\n## %s\n\n' "$year"; printf '%s\n' "$months" "$total" | table; } >>"$md.$$"
    printf '%s\n' "$months" "$total" | headline
    sleep 0.2 # only so that somebody watching sees the lines arrive
done

awk -F, '$2 > 0 { wet++; if ($6 !~ /^(drizzle|rain|snow)$/) other++ }
    END { if (other) printf "note: %d of %d wet days carry another label than drizzle, rain or snow\n", other, wet }
' <<<"$rows" >&2

mv "$csv.$$" "$csv"; mv "$md.$$" "$md"
echo "wrote $csv ($(($(wc -c <"$csv"))) bytes) and $md ($(($(wc -c <"$md"))) bytes)"
