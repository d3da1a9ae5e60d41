#!/usr/bin/env python3
"""Judges many mutants with one build: each stands behind a switch in the one program, and a run turns one of them on.

    mutants_at_once.py PACKAGE RESULTS LIST.json [--re REGEX] [--only N,N,...] [--jobs N]

PACKAGE is a copy of the code, which is changed. LIST.json is what `cargo mutants --list --json --diff` says of it.
A function becomes `match switched::on() { 7 => { its body as mutant 7 has it } ... _ => { its body } }`. What the compiler
does not take is switched off again; what stands in no function, and functions that give an `impl Trait`, are left to
`mutants.sh --each`.
RESULTS gets one line for each mutant: verdict, place and change, the test that noticed it. What is printed at the end are the
rows of docs/reference/mutants.md, each with a hash of the code that was judged.

Exit codes: 0 every mutant was noticed, 2 some were not.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

SWITCH = """//! Which mutant is on.

use std::sync::OnceLock;

static ON: OnceLock<usize> = OnceLock::new();

/// The number of the mutant that is on, or none of them.
pub fn on() -> usize {
    *ON.get_or_init(|| std::env::var("MUTANT_ON").ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX))
}
"""

# A mutant that takes so many times as long as the slowest honest tests runs for ever.
TIMEOUT_FACTOR = 4
TIMEOUT_LEAST_S = 60
LATE = "it took too long"

# That a seed replays says nothing of a mutant, and a world of chance is not the same with a mutant on.
SKIPPED = ["seed_gives", "seeds_differ", "seed_differ", "seeds_give"]


def main():
    given = arguments()
    mutants = json.loads(pathlib.Path(given.list).read_text())
    for number, mutant in enumerate(mutants):
        mutant["number"] = number
    chosen = [mutant for mutant in mutants if is_chosen(mutant, given)]
    package = pathlib.Path(given.package)
    (package / "src/switched.rs").write_text(SWITCH)
    with (package / "src/lib.rs").open("a") as lib:
        lib.write("pub mod switched;\n")
    verdicts = {}
    hashes = {mutant["file"]: code_hash((package / mutant["file"]).read_text()) for mutant in chosen}
    binaries = build(package, chosen, verdicts)
    limit = honest_time(binaries, package)
    judge(chosen, verdicts, binaries, package, limit, given)
    return report(chosen, verdicts, hashes, given.results)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("package")
    parser.add_argument("results")
    parser.add_argument("list")
    parser.add_argument("--re", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def is_chosen(mutant, given):
    if given.only and mutant["number"] not in {int(number) for number in given.only.split(",")}:
        return False
    return re.search(given.re, mutant["name"]) is not None


# Switches.


def build(package, mutants, verdicts):
    """Writes the switches and builds the tests, without what the compiler does not take. Gives the test binaries."""
    originals = {name: (package / name).read_text() for name in {mutant["file"] for mutant in mutants}}
    kept_const = set()
    while True:
        places = {}
        for name, text in originals.items():
            its = [it for it in mutants if it["file"] == name and it["number"] not in verdicts]
            switched, places[name] = with_switches(text, its, kept_const, verdicts)
            (package / name).write_text(switched)
        errors, binaries = compiled(package)
        if not errors:
            return binaries
        refuse(errors, places, verdicts, kept_const)


def with_switches(text, mutants, kept_const, verdicts):
    """The text with the mutants in it, and for ranges of its lines which mutant or which function without `const` they are."""
    pieces, done, marks = Pieces(), 0, []
    for start, end, its in functions(text, mutants, verdicts):
        mutated = its[0]
        name = mutated["function"]["function_name"].split("::")[-1].split("<")[0]
        head = re.compile(r"\bfn\s+" + re.escape(name) + r"\b").search(text, start, end)
        body = opening_brace(text, head.end())
        signature = text[start:body]
        place = f"{mutated['file']}:{name}:{mutated['function']['span']['start']['line']}"
        is_const = re.search(r"\bconst\s+fn\s", signature) is not None
        why = "its bodies have no common type" if "-> impl" in signature else None
        why = "a constant needs the function" if is_const and place in kept_const else why
        if why:
            verdicts.update((mutant["number"], ("left", why)) for mutant in its)
            continue
        pieces.add(text[done:start] + re.sub(r"\bconst\s+fn\s", "fn ", signature) + "{ match crate::switched::on() {\n")
        for mutant in its:
            changed = patched(text, mutant["diff"])
            lines = pieces.add(f"{mutant['number']}usize => {changed[body : end + len(changed) - len(text)]}\n")
            marks.append((*lines, mutant["number"], None))
        lines = pieces.add(f"_ => {text[body:end]}\n}} }}")
        marks.append((*lines, None, place if is_const else None))
        done = end
    pieces.add(text[done:])
    return pieces.text, marks


class Pieces:
    """A text that grows, and knows its lines."""

    def __init__(self):
        self.text = ""

    def add(self, piece):
        """Gives the first and the last line of the piece."""
        first = self.text.count("\n") + 1
        self.text += piece
        return first, self.text.count("\n") + 1


def functions(text, mutants, verdicts):
    """Where functions begin and end, with their mutants; those of an inner function belong to the outer one."""
    spans = {}
    for mutant in mutants:
        if mutant["function"] is None:
            verdicts[mutant["number"]] = ("left", "in no function")
            continue
        span = mutant["function"]["span"]
        spans.setdefault((offset(text, span["start"]), offset(text, span["end"])), []).append(mutant)
    outer = []
    for (start, end), its in sorted(spans.items(), key=lambda span: (span[0][0], -span[0][1])):
        if outer and end <= outer[-1][1]:
            outer[-1][2].extend(its)
        else:
            outer.append((start, end, its))
    return outer


def offset(text, place):
    lines = text.split("\n")
    return sum(len(line) + 1 for line in lines[: place["line"] - 1]) + place["column"] - 1


def opening_brace(text, at):
    depth = 0
    while True:
        sign = text[at]
        if sign == "{" and depth == 0:
            return at
        depth += (sign in "([") - (sign in ")]")
        at += 1


def patched(text, diff):
    """The text after a change of one hunk."""
    lines = diff.split("\n")
    head = next(index for index, line in enumerate(lines) if line.startswith("@@"))
    first, count = re.match(r"@@ -(\d+)(?:,(\d+))?", lines[head]).groups()
    first, count = int(first) - 1, int(count or 1)
    new, taken = [], 0
    for line in lines[head + 1 :]:
        if taken == count and not line.startswith("+"):
            break
        if line.startswith("+"):
            new.append(line[1:])
        elif line.startswith("-"):
            taken += 1
        elif not line.startswith("\\"):
            taken += 1
            new.append(line[1:])
    old = text.split("\n")
    assert taken == count, diff
    return "\n".join(old[:first] + new + old[first + count :])


def compiled(package):
    command = ["cargo", "test", "--no-run", "--offline", "--message-format=json"]
    environment = {**os.environ, "RUSTFLAGS": "--cap-lints=allow"}
    run = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True)
    errors, binaries = [], {}
    for line in run.stdout.splitlines():
        said = json.loads(line)
        if said["reason"] == "compiler-message" and said["message"]["level"] == "error":
            errors.append(said["message"])
        elif said["reason"] == "compiler-artifact" and said.get("executable"):
            binaries[said["target"]["name"]] = said["executable"]
    if run.returncode != 0 and not errors:
        sys.exit(run.stderr)
    print(f"built: {len(errors)} errors", flush=True)
    return errors, binaries


def refuse(errors, places, verdicts, kept_const):
    """Switches off what the compiler named."""
    before = len(verdicts) + len(kept_const)
    for error in errors:
        for span in error["spans"]:
            if not span["is_primary"]:
                continue
            for first, last, number, place in places.get(span["file_name"], []):
                if first <= span["line_start"] <= last and number is not None:
                    verdicts[number] = ("unviable", error["message"].split("\n")[0])
        if "non-const" in error["message"]:
            called = re.search(r"`([^`]*)`", error["message"]).group(1).split("::")[-1].split("<")[0]
            for marks in places.values():
                kept_const.update(mark[3] for mark in marks if mark[3] and mark[3].split(":")[1] == called)
    if before == len(verdicts) + len(kept_const):
        sys.exit("\n".join(error["rendered"] for error in errors[:5]))


# Judging.


def tests_of(binary, only):
    return [binary, *only, "--test-threads=2", *(word for name in SKIPPED for word in ("--skip", name))]


def near(mutant):
    """The tests beside a file, which notice most of its mutants, as a filter: those of its folder."""
    *folder, name = mutant["file"].removeprefix("src/").removesuffix(".rs").split("/")
    return ["::".join(folder if len(folder) > 1 or folder[0] != "domain" else [*folder, name]) + "::"]


def run_tests(binary, package, number, limit, only=()):
    """The first test that fails with this mutant on; none if all pass."""
    environment = {**os.environ, "MUTANT_ON": str(number)}
    with tempfile.TemporaryDirectory() as home:
        environment["TMPDIR"] = home
        run = subprocess.Popen(
            tests_of(binary, only), cwd=package, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )
        late = threading.Event()
        timer = threading.Timer(limit, lambda: (late.set(), end(run)))
        timer.start()
        try:
            for line in run.stdout:
                failed = re.match(r"test (\S+).* \.\.\. FAILED", line)
                if failed:
                    return failed.group(1)
            code = run.wait()
            if late.is_set():
                return LATE
            return None if code == 0 else f"ended with {code}"
        finally:
            timer.cancel()
            end(run)
            run.wait()


def end(run):
    try:
        os.killpg(run.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def honest_time(binaries, package):
    longest = 0
    for name, binary in binaries.items():
        start = time.monotonic()
        failed = run_tests(binary, package, 10**9, 600)
        took = time.monotonic() - start
        print(f"{name} without a mutant: {took:.1f} s", flush=True)
        if failed:
            sys.exit(f"{name} fails without a mutant: {failed}")
        longest = max(longest, took)
    return max(TIMEOUT_LEAST_S, TIMEOUT_FACTOR * longest)


def judge(mutants, verdicts, binaries, package, limit, given):
    waiting = [mutant for mutant in mutants if mutant["number"] not in verdicts]
    # The fastest first.
    names = sorted(binaries, key=lambda name: ["trust_runtime", "conformance", "simulation"].index(name))

    def one(mutant):
        for name, only in [(names[0], near(mutant)), *((name, []) for name in names)]:
            failed = run_tests(binaries[name], package, mutant["number"], limit, only)
            if failed:
                return judged(mutant, "noticed", f"{name} {failed}")
        judged(mutant, "MISSED", "")

    def judged(mutant, verdict, why):
        verdicts[mutant["number"]] = (verdict, why)
        # At once, so that a run that is ended has said what it knew.
        print(f"{verdict} {mutant['number']} {mutant['name']} {why}", flush=True)

    with ThreadPoolExecutor(given.jobs) as pool:
        for count, _ in enumerate(pool.map(one, waiting), 1):
            if count % 50 == 0:
                print(f"{count} of {len(waiting)}", flush=True)
    # A machine that was busy with something else has noticed nothing: those are judged again, one by one, with more time.
    limit *= 3
    for mutant in waiting:
        if verdicts[mutant["number"]][1].endswith(LATE):
            one(mutant)


def report(mutants, verdicts, hashes, results):
    files = {}
    with open(results, "w") as out:
        for mutant in mutants:
            verdict, why = verdicts[mutant["number"]]
            files.setdefault(mutant["file"], []).append(verdict)
            out.write(f"{verdict}\t{mutant['number']}\t{mutant['name']}\t{why}\n")
    print("| file | code | mutants | do not compile | noticed | left | not noticed |")
    print("|---|---|---|---|---|---|---|")
    for name, its in sorted(files.items()):
        counts = [str(its.count(kind)) for kind in ["unviable", "noticed", "left", "MISSED"]]
        shown = name.removeprefix("src/").removesuffix(".rs")
        print("| " + " | ".join([f"`{shown}`", f"`{hashes[name]}`", str(len(its)), *counts]) + " |")
    return 2 if any(verdict == "MISSED" for verdict, _ in verdicts.values()) else 0


def code_hash(text):
    """Of the lines before the test module, without comments: as the test that holds the page takes it (tests/tidy.rs)."""
    lines = []
    for line in text.split("\n"):
        if line == "mod tests {":
            break
        lines.append(line.split("//")[0].rstrip())
    return hashlib.sha256("\n".join(line for line in lines if line).encode()).hexdigest()[:12]


sys.exit(main())
