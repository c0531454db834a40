# shellcheck shell=bash
# Functions for the steps, which source this file: install packages and tools, run as nobody.

# The folder of tools that are built or unpacked once, with one folder per version.
tools="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/keepalive-auditor-ci"

# fail SENTENCE : ends the step with this reason.
fail() {
    echo "$*" >&2
    exit 1
}

# retry COMMAND… : for downloads: runs a command up to four times, with a pause after each failure.
retry() {
    local pause
    for pause in 5 15 45; do
        "$@" && return
        echo "failed, once more in $pause s: $*" >&2
        sleep "$pause"
    done
    "$@"
}

# need PACKAGE… : installs the Debian packages that are missing.
need() {
    local package missing=() log
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || fail "${missing[*]} is missing: install it by hand, or run as root"
    echo "installing ${missing[*]}"
    log=$(mktemp)
    if ! retry apt_install "${missing[@]}" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        echo "cannot install ${missing[*]}: install it by hand" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

apt_install() {
    local apt=(apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    "${apt[@]}" update -q &&
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -q -y --no-install-recommends "$@"
}

# need_pip PACKAGE VERSION : unpacks a package of the Python index into $tools/PACKAGE-VERSION; its programs are in bin/.
need_pip() {
    local to="$tools/$1-$2"
    [[ -d $to ]] && return 0
    python3 -m pip --version >/dev/null 2>&1 || need python3-pip
    echo "installing $1 $2"
    retry pip_unpack "$1==$2" "$to.part"
    mv "$to.part" "$to"
}

pip_unpack() { # REQUIREMENT FOLDER
    rm -rf "$2" &&
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$2" "$1"
}

# need_crate CRATE VERSION [CARGO INSTALL OPTION]… : builds a program into $tools/CRATE-VERSION/bin, with few
# optimizations, because it is not shipped.
need_crate() {
    local crate=$1 version=$2
    shift 2
    local to="$tools/$crate-$version"
    [[ -x $to/bin/$crate ]] && return 0
    need gcc libc6-dev
    echo "building $crate $version"
    CARGO_TARGET_DIR="$to/target" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        retry cargo install --quiet --locked --root "$to" --version "$version" "$@" "$crate"
    rm -rf "$to/target"
}

# as_nobody COMMAND… : runs a command without privileges and without root's environment.
as_nobody() {
    setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent \
        ${REQUIRE_KERNEL_TESTS:+REQUIRE_KERNEL_TESTS="$REQUIRE_KERNEL_TESTS"} RUST_BACKTRACE=1 "$@"
}
