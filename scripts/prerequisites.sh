#!/usr/bin/env bash
# Installs what this machine lacks, packages of the distribution and Rust: `prerequisites.sh run`, `prerequisites.sh dist` or
# `prerequisites.sh test`.
#
# A person at a terminal is asked first; with CI set nobody is. Without a terminal and without CI nothing is installed:
# the script says what to do and fails. Packages in the way are removed, a person's only if they agree to that, too. Who has
# a default toolchain of Rust keeps it.

source "$(dirname "$0")/common.sh"
purpose=${1:?run, dist or test}

missing=()
# need PACKAGE CONDITION...: the package is missing unless the condition holds.
need() {
    local package=$1
    shift
    "$@" || missing+=("$package")
}
any() { compgen -G "$1" >/dev/null; }

need qemu-system-x86 have qemu-system-x86_64
need mmdebstrap have mmdebstrap
need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
need e2fsprogs have mke2fs
need zstd have zstd
need xz-utils have xz
need npm have npm
need nftables test -x /usr/sbin/nft
need gcc have cc
need libc6-dev any '/usr/lib/*/libc.a'
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need curl have curl
if ((EUID != 0)); then need uidmap have newuidmap; fi
if [[ $purpose != run ]]; then need python3-venv python3 -c 'import ensurepip'; fi 2>/dev/null
if [[ $purpose == test ]]; then
    # Elsewhere it is no package of the distribution, and the pages' tests are skipped.
    if grep -qsx 'ID=debian' /etc/os-release; then need chromium-driver have chromedriver; fi
    need cpio have cpio
    need g++ have c++
    need iproute2 have ip
    need lz4 have lz4
    need openssl have openssl
    need postgresql any '/usr/lib/postgresql/*/bin/postgres'
    need shellcheck have shellcheck
fi 2>/dev/null

packages=(apt-get install --no-install-recommends)
toolchain=(rustup toolchain install stable --profile minimal --component "clippy,rustfmt")
todo=()
if ! rust_is_new_enough; then need rustup have rustup; fi
if ((${#missing[@]} > 0)); then todo+=("${packages[*]} ${missing[*]}"); fi
if ! rust_is_new_enough; then todo+=("${toolchain[*]}"); fi
((${#todo[@]} > 0)) || exit 0

as_root() {
    if ((EUID == 0)); then "$@"
    elif have sudo; then sudo "$@"
    else die "Become root (or install sudo) and run: $*"
    fi
}

ask() {
    [[ -n ${CI:-} ]] && return
    [[ -t 0 && -t 2 ]] || die "Run this at a terminal, with CI=1 to be asked nothing, or run these commands yourself."
    read -r -p "$1 [Y/n] " answer
    [[ ${answer,,} =~ ^(y|yes|)$ ]] || die "Nothing was installed."
}

install_missing() {
    have apt-get || die "This machine has no apt-get. Install these yourself, then try again: ${missing[*]}"
    as_root apt-get update -qq || die "The list of packages could not be fetched."
    for package in "${missing[@]}"; do
        [[ $(apt-cache policy "$package") == *"Candidate: "[^\(]* ]] || no_package "$package"
    done
    local in_the_way
    in_the_way=$("${packages[@]}" --simulate --quiet "${missing[@]}" | sed -n 's/^Remv \([^ ]*\).*/\1/p' | paste -sd ' ')
    if [[ -n $in_the_way ]]; then ask "This removes packages that are in the way: $in_the_way. Go on?"; fi
    # postgresql must not start a server of its own: the tests start theirs.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "${packages[@]}" "${quiet[@]}" --yes "${missing[@]}" >&2 ||
        die "The packages were not installed."
}

no_package() {
    [[ $1 != rustup ]] || die "This needs Rust $rust_version or newer, and this distribution has no package \`rustup\`.
Install Rust as its website says, then try again."
    die "This distribution has no package \`$1\`."
}

say "Something is missing here. This installs it:"
say "$(printf '    %s\n' "${todo[@]}")"
ask "Install it now?"
if ((${#missing[@]} > 0)); then step "Install ${missing[*]}" install_missing; fi
if ! rust_is_new_enough; then
    step "Install Rust" "${toolchain[@]}"
    [[ $(rustup default 2>/dev/null) == *"(default)"* ]] || rustup default stable
    rust_is_new_enough || die "This needs Rust $rust_version or newer; there is $(rustc --version)."
fi
