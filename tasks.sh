#!/bin/sh
# Everything that is done to this crate by a machine: `./tasks.sh TASK...`, without arguments `all`.
#
#   setup     installs what the tests need (apt; only what is missing)
#   test      setup, then all tests and the examples in the documentation
#   fmt       the formatting is right
#   clippy    no warnings, in all targets with all features
#   doc       the documentation has no broken links
#   features  every feature builds alone, and the crate builds with none
#   examples  the demo imports every mail once, and nothing the second time; a swap half-way gives equal results
#   deny      licences and advisories; needs `cargo install cargo-deny`, and is not part of `all`
#   all       what must pass before a change is taken: test fmt clippy doc features examples
set -eu
cd "$(dirname "$0")"

# A C compiler for SQLite and the cryptography; Dovecot and PostgreSQL as servers that the tests start for themselves,
# Chromium as the browser that they sign in with.
packages='ca-certificates gcc libc6-dev make dovecot-core dovecot-imapd postgresql chromium chromium-driver'

setup() {
    command -v apt-get >/dev/null || {
        echo "no apt here: install what these Debian packages hold: $packages" >&2
        return 0
    }
    missing=''
    for package in $packages; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    as_root=''
    [ "$(id -u)" -eq 0 ] || as_root='sudo'
    $as_root apt-get update -q
    # RUNLEVEL=1: the tests start servers of their own; the packages' services stay off.
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $missing
}

test_() {
    setup
    cargo test --all-features
}

fmt() {
    cargo fmt --check
}

clippy() {
    cargo clippy --all-targets --all-features -- -D warnings
}

doc() {
    RUSTDOCFLAGS='-D warnings' cargo doc --all-features --no-deps
}

features() {
    cargo clippy --lib --no-default-features -- -D warnings
    for feature in graph imap sqlite postgres certificate testing; do
        echo "feature $feature"
        cargo clippy --lib --no-default-features --features "$feature" -- -D warnings
    done
    cargo clippy --lib -- -D warnings
}

examples() {
    rm -rf target/mail-account-demo
    cargo run --example import
    mails=$(ls examples/data/*.eml | wc -l)
    moved=$(find target/mail-account-demo/mailbox/.INBOX.Processed/cur target/mail-account-demo/mailbox/.INBOX.Processed/new -type f | wc -l)
    [ "$mails" -eq "$moved" ] || { echo "$moved of $mails mails were moved" >&2; return 1; }
    again=$(cargo run --example import -- --json)
    echo "$again"
    echo "$again" | grep -q '"imported":0' || { echo 'the second run imported something' >&2; return 1; }
    cargo run --example folders -- --config target/mail-account-demo/mail.toml --account demo
    cargo run --example failures -- --config target/mail-account-demo/mail.toml --job demo
    cargo run --example swap_demo --features testing
}

deny() {
    cargo deny --all-features check
}

[ $# -gt 0 ] || set -- all
for task in "$@"; do
    case $task in
        all) set -- test fmt clippy doc features examples ;;
        *) set -- "$task" ;;
    esac
    for step in "$@"; do
        case $step in
            test) step=test_ ;;
            setup | fmt | clippy | doc | features | examples | deny) ;;
            *) echo "there is no task \`$step\`; see the head of $0" >&2; exit 2 ;;
        esac
        echo "== ${step%_}"
        "$step"
    done
done
