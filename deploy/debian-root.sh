# shellcheck shell=bash
# debian-root.sh - makes Debian 12 root directories and disk images.  To be sourced by bash scripts.

debian_codename=bookworm
debian_more_suites='' # to be read, too; say, bookworm-backports

# Prints this machine's own Debian package sources, one a line, and none of anybody else's.  apt's
# index knows the origin of each, whichever file and format it stands in.
debian_sources()
{
    local sources
    # shellcheck disable=SC2016  # apt expands these
    sources=$(apt-get indextargets --format '$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
                  'Created-By: Packages' 'Architecture: amd64' |
              sed -nE "s/^Debian (deb [^ ]+ $debian_codename(-updates|-security)? main)$/\1/p")
    if [[ $sources != *" $debian_codename main"* ]]; then
        echo "apt knows no Debian $debian_codename source; run apt-get update on a Debian 12" >&2
        return 1
    fi
    echo "$sources"
}

# debian_root DIR LOG PACKAGES [MMDEBSTRAP-OPTION...] - makes a Debian in DIR, which must not
# exist or be empty, with the essential packages, those named (separated by commas or spaces) and
# what they need: no recommended packages, no documentation, no apt.  Details go to LOG.
debian_root()
{
    local dir=$1 log=$2 packages=$3 sources suite
    shift 3
    sources=$(debian_sources) || return
    for suite in $debian_more_suites; do
        sources+=$'\n'$(sed -n "s/ $debian_codename main$/ $suite main/p" <<<"$sources")
    done
    # usr-is-merged: else usrmerge comes in its place, and brings 50 MB of Perl.
    # In namespaces of its own, so that all of its children and what it mounts in DIR end with it, even if it
    # is killed.
    unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
        mmdebstrap --variant=essential --include="usr-is-merged $packages" --format=directory \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
        --dpkgopt=force-unsafe-io --dpkgopt=path-exclude='/usr/share/man/*' \
        --dpkgopt=path-exclude='/usr/share/doc/*' --dpkgopt=path-exclude='/usr/share/info/*' \
        --dpkgopt=path-exclude='/usr/share/locale/*' \
        "$@" "$debian_codename" "$dir" - <<<"$sources" >"$log" 2>&1 && return
    tail -n 30 "$log" >&2
    echo "mmdebstrap failed; all of its output is in $log" >&2
    return 1
}

# ext4_image DIR FILE SIZE LABEL - makes the sparse disk image FILE that holds the tree DIR.
ext4_image()
{
    local dir=$1 file=$2 size=$3 label=$4
    rm -f "$file"
    mke2fs -q -t ext4 -d "$dir" -L "$label" -m 0 -E assume_storage_prezeroed=1 \
        "$file" "$size" >/dev/null
}
