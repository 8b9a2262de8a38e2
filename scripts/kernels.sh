# shellcheck shell=bash
# The kernels for tests in qemu. Sourced after lib.sh, not run.
#
# A kernel's name is its series and its flavour, if any: 5.10, 6.1, 6.12, 6.12-rt, newest, newest-rt, 6.12-arm64. The
# machine's own suite has some of them. The others come from other suites of Debian, from the mirror that this
# machine's apt uses, with lists and packages in the cache, so that the machine's own apt stays as it is.

# Besides the suite's security updates. "newest" is the newest kernel of the last one.
OTHER_SUITES=(bullseye trixie-backports)
OTHER_SECURITY_SUITES=(bullseye-security)

# other_suites ARCH: a configuration of apt for the other suites, and for the machine's own for another machine's ARCH.
# Prints its path, for APT_CONFIG.
other_suites() {
    local arch=$1 folder=$CACHE/apt-$1 origin release uri suites suite
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    # shellcheck disable=SC2016 # apt expands it
    env -u APT_CONFIG apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(REPO_URI)' | sort -u | while read -r origin release uri; do
        [ "$origin" = Debian ] || continue
        case $release in
        *-security) suites=("${OTHER_SECURITY_SUITES[@]}") ;;
        *-*) continue ;;
        *) suites=("${OTHER_SUITES[@]}") ;;
        esac
        [ "$arch" = "$(dpkg --print-architecture)" ] || suites+=("$release")
        for suite in "${suites[@]}"; do
            echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
        done
    done >"$folder/sources.list"
    [ -s "$folder/sources.list" ] || die "this machine's apt has no mirror of Debian"
    touch "$folder/status"
    cat >"$folder/apt.conf" <<CONF
Dir::Etc::SourceList "$folder/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$folder/lists";
Dir::State::Status "$folder/status";
Dir::Cache "$folder";
APT::Sandbox::User "root";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
CONF
    [ -n "$(find "$folder/updated" -mtime -7 2>/dev/null)" ] || {
        APT_CONFIG=$folder/apt.conf apt-get update -qq >&2
        touch "$folder/updated"
    }
    echo "$folder/apt.conf"
}

# newest_package PATTERN: the newest package whose whole name matches.
newest_package() {
    local package
    package=$(apt-cache pkgnames linux- | grep -xE -- "$1" | sort -V | tail -n 1)
    [ -n "$package" ] || die "there is no package $1"
    echo "$package"
}

# kernel NAME: fetches a kernel, and prints the path of a folder with `vmlinuz` and `lib/modules`.
kernel() {
    local series=${1%%-*} arch=amd64 flavour='' packages=() package folder contents release
    case $1 in
    *-arm64) arch=arm64 ;;
    *-rt) flavour=rt- ;;
    esac
    case $1 in
    5.10* | newest* | *-arm64) APT_CONFIG=$(other_suites "$arch") && export APT_CONFIG ;;
    *) apt-cache show linux-image-amd64 >/dev/null 2>&1 || alone apt update_lists ;;
    esac
    if [ "$series" = newest ]; then
        # A release is three packages: the image, the modules, and what is no module.
        packages=("$(newest_package "linux-binary-[0-9.]+[+]deb[0-9]+-$flavour$arch")")
        packages+=("${packages[0]/-binary-/-modules-}" "${packages[0]/-binary-/-base-}")
    else
        packages=("$(newest_package "linux-image-${series}[.][0-9.+deb-]+-$flavour$arch-unsigned")")
    fi
    folder=$CACHE/kernels/${packages[0]}
    [ -f "$folder/.done" ] || {
        rm -rf "$folder"
        mkdir -p "$folder/lib/modules"
        for package in "${packages[@]}"; do
            contents=$(unpack_package "$package")
            cp -al "$contents"/lib/modules/. "$folder/lib/modules/" 2>/dev/null || cp -al "$contents"/usr/lib/modules/. "$folder/lib/modules/"
            cp -al "$contents"/boot/vmlinuz-* "$folder/vmlinuz" 2>/dev/null || true
        done
        release=$(ls "$folder/lib/modules")
        [ -f "$folder/vmlinuz" ] || mv "$folder/lib/modules/$release/vmlinuz" "$folder/vmlinuz"
        depmod -b "$folder" "$release" 2>/dev/null
        touch "$folder/.done"
    }
    echo "$folder"
}
