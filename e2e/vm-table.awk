# The table of vm-test: from a list of what was not run, of machines that died and of how long they took, and the output
# of a test binary on each machine, in a file named MACHINE_DRIVER. Ends with 1 where a test failed, or none ran.

function runtime(name) {
    if (name ~ /crun$/) return "crun"
    return name ~ /runc$/ ? "runc" : "any"
}

FNR == 1 && FILENAME !~ /listed$/ {
    whole = FILENAME
    sub(/.*\//, "", whole)
    split(whole, parts, "_")
    machine = parts[1]
    driver = parts[2]
    shown = ""
}

$1 == "skipped" && FILENAME ~ /listed$/ {
    reason = $0
    sub(/^skipped [^ ]+ [^ ]+ */, "", reason)
    why[++skips] = sprintf("%-18s %s: %s", $2, $3, reason)
    next
}

$1 == "died" && FILENAME ~ /listed$/ {
    sub(/::$/, "", $3)
    died[++deaths] = sprintf("%-18s in %s, and went on from there in another", $2, $3)
    next
}

$1 == "took" && FILENAME ~ /listed$/ {
    took[++times] = sprintf("%s %d:%02d", $2, $3 / 60, $3 % 60)
    next
}

$1 == "test" && $3 == "..." {
    suite = $2
    sub(/::.*/, "", suite)
    row = suite SUBSEP driver
    if (!(row in known)) { known[row] = ++rows; named[rows] = row }
    at = row SUBSEP machine SUBSEP runtime($2)
    shows[machine, runtime($2)] = 1
    # One that the end of the machine cut short has no word there.
    if ($4 == "ok") passed[at]++
    else if ($4 != "") { failed[at]++; wrong[++failures] = sprintf("%-18s %s", whole, $2) }
    ran++
}

# What a test said of itself.
/^---- .* stdout ----$/ { shown = $2 }
shown != "" && /^skipped: / {
    reason = substr($0, 10)
    why[++skips] = sprintf("%-18s %s: %s", whole, shown, reason)
    split(shown, parts, "::")
    at = parts[1] SUBSEP driver SUBSEP machine SUBSEP runtime(shown)
    passed[at]--
    left[at]++
}

function cell(at) {
    if (!(passed[at] + failed[at] + left[at])) return "."
    return passed[at] + 0 " ok" (failed[at] ? ", " failed[at] " FAILED" : "") (left[at] ? ", " left[at] " skipped" : "")
}

END {
    printf "%-14s%-10s", "suite", "driver"
    machines = split("apparmor selinux node", machine_list, " ")
    runtimes = split("crun runc any", runtime_list, " ")
    for (m = 1; m <= machines; m++)
        for (r = 1; r <= runtimes; r++) {
            # A column for what ran.
            here = machine_list[m] SUBSEP runtime_list[r]
            if (here in shows) printf "%-20s", machine_list[m] " " runtime_list[r]
        }
    print ""
    for (s = 1; s <= rows; s++) {
        split(named[s], parts, SUBSEP)
        line = sprintf("%-14s%-10s", parts[1], parts[2])
        for (m = 1; m <= machines; m++)
            for (r = 1; r <= runtimes; r++)
                if ((machine_list[m] SUBSEP runtime_list[r]) in shows)
                    line = line sprintf("%-20s", cell(named[s] SUBSEP machine_list[m] SUBSEP runtime_list[r]))
        sub(/ +$/, "", line)
        print line
    }
    if (skips) print "\nskipped:"
    for (n = 1; n <= skips; n++) print "  " why[n]
    if (deaths) print "\ndied of itself:"
    for (n = 1; n <= deaths; n++) print "  " died[n]
    if (times) printf "\nminutes: "
    for (n = 1; n <= times; n++) printf "%s%s", took[n], n < times ? ", " : "\n"
    if (failures) print "\nFAILED:"
    for (n = 1; n <= failures; n++) print "  " wrong[n]
    exit failures || !ran
}
