# shellcheck shell=bash
# What the steps share: installing what they need, and becoming nobody. Sourced, never run.

# Tools that are built or unpacked once are kept here, one directory per version.
tools="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/keepalive-auditor-ci"

# fail SENTENCE : ends the step with the reason.
fail() {
    echo "$*" >&2
    exit 1
}

# need PACKAGE… : installs the Debian packages that are missing.
need() {
    local package missing=() log
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    echo "installing ${missing[*]}"
    log=$(mktemp)
    if ! { apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update -q &&
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
            install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        echo "cannot install ${missing[*]}: install them by hand, or run as root" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# need_pip PACKAGE VERSION : unpacks a package of the Python index into $tools/PACKAGE-VERSION, its programs in bin/ there.
need_pip() {
    local to="$tools/$1-$2"
    [[ -d $to ]] && return 0
    python3 -m pip --version >/dev/null 2>&1 || need python3-pip
    echo "installing $1 $2"
    rm -rf "$to.part"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$to.part" "$1==$2"
    mv "$to.part" "$to"
}

# need_crate CRATE VERSION [CARGO INSTALL OPTION]… : builds a program into $tools/CRATE-VERSION/bin. It is used, not
# shipped, so it is built quickly rather than well.
need_crate() {
    local crate=$1 version=$2
    shift 2
    local to="$tools/$crate-$version"
    [[ -x $to/bin/$crate ]] && return 0
    need gcc libc6-dev
    echo "building $crate $version"
    CARGO_TARGET_DIR="$to/target" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --quiet --locked --root "$to" --version "$version" "$@" "$crate"
    rm -rf "$to/target"
}

# as_nobody COMMAND… : runs it with no privilege at all, and with nothing of root's environment.
as_nobody() {
    setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent \
        ${REQUIRE_KERNEL_TESTS:+REQUIRE_KERNEL_TESTS="$REQUIRE_KERNEL_TESTS"} RUST_BACKTRACE=1 "$@"
}
