#!/bin/sh
# rustc for the workspace's crates when they are fuzzed (RUSTC_WORKSPACE_WRAPPER): libFuzzer's
# coverage, optimisation, and the checks of a debug build. Dependencies are built by rustc itself,
# so that the fuzz targets share them with the tests; the coverage that guides libFuzzer is ours.
#
# The coverage flags are those of cargo-fuzz 0.13.

# Build scripts run on their own, without libFuzzer's runtime.
case " $* " in *' --crate-name build_script_build '*) exec "$@" ;; esac

exec "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    -Copt-level=1 \
    -Ccodegen-units=1 \
    -Cdebuginfo=line-tables-only \
    -Cdebug-assertions=on \
    -Coverflow-checks=on \
    --cfg fuzzing
