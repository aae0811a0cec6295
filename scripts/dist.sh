#!/usr/bin/env bash
# Makes the release in target/dist: an archive with the programs, the unit and the documents, a bill of materials, packages of
# the client libraries, and the SHA-256 of each. The same sources, in the same place with the same toolchain, give the same
# bytes. With `dev` it is made in target/dist-dev of programs that are not optimized, for who tries the packing.

source "$(dirname "$0")/common.sh"

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
name=run-dat-sheesh-$version-x86_64-linux
profile=${1:-release}
case $profile in
release) programs=target/release dist=target/dist ;;
dev) programs=target/debug dist=target/dist-dev ;;
*) die "dist.sh release or dev" ;;
esac
# When the sources are from; now, where nobody knows.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
step "Tools" scripts/tools.sh dist
scripts/build.sh "$profile"

rm -rf "$dist"
mkdir -p "$dist/$name"/{bin,share}
install -m 755 --strip "$programs/rds" "$programs/rds-agent" "$dist/$name/bin/"
"$dist/$name/bin/rds" --version >&2
cp -r packaging/systemd packaging/caddy docs "$dist/$name/share/"
cp LICENSE README.md CHANGELOG.md "$dist/$name/"
tar --create --directory "$dist" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go-w,a+rX "$name" |
    gzip --no-name --best >"$dist/$name.tar.gz"
rm -r "${dist:?}/$name"
target/tools/bin/cargo-sbom --cargo-package rds --output-format cyclone_dx_json_1_6 >"$dist/$name.cdx.json"

clients() {
    cp LICENSE sdk/typescript/ && cp LICENSE sdk/python/ &&
        (cd sdk/typescript && npm ci --silent --no-audit --no-fund &&
            npm pack --silent --pack-destination "../../$dist" >/dev/null) &&
        target/tools/python-dist/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$dist" ./sdk/python
}
step "Packages of the client libraries" clients
# Of the same version, or they are not found.
typescript=run-dat-sheesh-$version.tgz python=run_dat_sheesh-$version-py3-none-any.whl
(cd "$dist" && sha256sum "$name.tar.gz" "$name.cdx.json" "$typescript" "$python" >SHA256SUMS)

(cd "$dist" && sha256sum --check --quiet SHA256SUMS)
contents=$(tar --list --file "$dist/$name.tar.gz")
while read -r file; do
    [[ $'\n'$contents$'\n' == *$'\n'"$name/$file"$'\n'* ]] || die "The archive lacks $file, which docs/deployment.md installs."
done < <(grep --only-matching ' \(bin\|share\)/[^ ]*' docs/deployment.md)
say "The release is in $dist:"
(cd "$dist" && ls -sh --block-size=K && cat SHA256SUMS) >&2
