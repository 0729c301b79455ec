# What start-chat and test share: sourced by them, does nothing by itself.
# Checks the tools that a build needs, and makes the virtual environment of the example.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)
example=$repository/examples/django_chat

say() { printf '==> %s\n' "$*" >&2; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# cargo, new enough, and a linker for it.
need_cargo() {
    if ! command -v cargo >/dev/null && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup, see https://rustup.rs"
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
    found=$(cargo --version </dev/null | cut -d ' ' -f 2)
    printf '%s\n' "$wanted" "$found" | sort -V -C || fail "cargo $found is too old, $wanted is needed: rustup update"
    command -v cc >/dev/null || fail "a C compiler (cc) is missing: apt-get install gcc libc6-dev"
}

has_python() { command -v python3 >/dev/null && python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; }
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

need_python() {
    has_python || fail "Python 3.10 or newer is missing: apt-get install python3 python3-venv"
    has_venv || fail "Python's venv module is missing: apt-get install python3-venv"
}

# What the virtual environment must have been made from; the folder, because its programs hold their own path.
venv_origin() {
    sha256sum <"$example/requirements.txt"
    python3 --version
    printf '%s\n' "$example"
}

# Makes the example's virtual environment anew when it is missing, half made, or made from something else.
# The stamp is written last, so whatever was interrupted has none. The lock keeps two such runs apart.
make_venv() {
    local venv=$example/.venv
    (
        flock 9
        if "$venv/bin/python" -c '' 2>/dev/null && venv_origin | cmp -s - "$venv/stamp"; then
            exit 0
        fi
        say "making examples/django_chat/.venv"
        rm -f "$venv/stamp"
        python3 -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$example/requirements.txt" ||
            fail "pip could not install examples/django_chat/requirements.txt; it is tried again at the next run"
        venv_origin >"$venv/stamp.new"
        mv "$venv/stamp.new" "$venv/stamp"
    ) 9<"$example/requirements.txt" </dev/null
}
