# Prints the table of a run of .ci/run from its output: for each step its minutes, the minutes in
# which something was compiled, and the number of tests. A tier of `cargo lab test` is a step. Steps
# that run next to others do not count in the sums of minutes.
#
# Lines that it reads:
#   == STEP (START s)                             .ci/run: a step begins
#   == idle: STEP (START s)                       .ci/compute: a step begins, next to the others
#   -- tier NAME                                  cargo lab test: a tier begins
#   NAME ok 3 passed, 0 failed, ... in 2 min 1 s  cargo lab test: a tier has ended
#   Finished `dev` profile ... in 1m 42s          cargo: compiled
#   [2/5] Build Kubernetes v1.36.3: 5 min 3 s     cargo lab: built
#   test result: ok. 12 passed; 1 failed; ...     a test program has ended

# Returns the seconds of `4m 25s`, `4 min 25 s`, `12.5s` or `0.3 s`.
function seconds(text,   minutes) {
  if (match(text, /[0-9]+ ?m/)) minutes = substr(text, RSTART, RLENGTH) + 0
  sub(/.*m(in)?/, "", text)
  return minutes * 60 + text
}

# Makes `name` the step to which the next lines belong.
function begin(name) {
  if (!(name in known)) { known[name]; names[++count] = name }
  step = name
}

/^== idle: .* \([0-9]+ s\)$/ {
  start = $(NF - 1); sub(/\(/, "", start)
  if (idle != "") total[idle] += start - idle_begun
  idle_begun = start
  idle = $0; sub(/^== /, "", idle); sub(/ \([0-9]+ s\)$/, "", idle)
  begin(idle)
  beside[idle]
  next
}
/^== .* \([0-9]+ s\)$/ {
  start = $(NF - 1); sub(/\(/, "", start)
  if (top != "") total[top] += start - begun
  begun = start
  name = $0; sub(/^== /, "", name); sub(/ \([0-9]+ s\)$/, "", name)
  top = name
  begin(name)
}
/^-- tier / { begin(substr($0, 4)) }
/^[a-z]+ +(ok|FAILED) +[0-9]+ passed, / {
  name = "tier " $0; sub(/ +(ok|FAILED) .*/, "", name)
  time = $0; sub(/.* in /, "", time)
  total[name] += seconds(time)
  if (name == "tier sim") beside[name]
  else total[top] -= seconds(time)
}
/^ *Finished `/ { time = $0; sub(/.* in /, "", time); compiled[step] += seconds(time) }
/^\[[0-9]+\/[0-9]+\] (Build|Parts) .*: [0-9][0-9. a-z]*$/ && !/still running/ {
  time = $0; sub(/.*: /, "", time); compiled[step] += seconds(time)
}
/^test result: / { tests[step] += $4 + $6 }

END {
  printf "\n%-60s %8s %10s %6s\n", "step", "minutes", "compiling", "tests"
  for (i = 1; i <= count; i++) {
    name = names[i]
    if (!(name in total) && !(name in compiled)) continue
    printf "%-60s %8.1f %10.1f %6s\n", name, total[name] / 60, compiled[name] / 60, tests[name]
    all_tests += tests[name]
    if (name in beside) continue
    sum += total[name]; all_compiled += compiled[name]
  }
  printf "%-60s %8.1f %10.1f %6d\n", "all", sum / 60, all_compiled / 60, all_tests
}
