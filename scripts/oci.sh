# shellcheck shell=bash
# Images without a builder: files become an OCI archive, and the same files the same bytes. Sourced, not run.

# oci_pack FOLDER: the folder as a tar, whoever packs it and whenever.
oci_pack() { tar -C "$1" --format=ustar --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 --mode=755 -cf - .; }

# oci_blob FOLDER FILE: moves the file to where its digest says, and prints that.
oci_blob() {
    local digest
    digest=$(sha256sum "$2" | cut -d' ' -f1)
    mv "$2" "$1/blobs/sha256/$digest"
    echo "sha256:$digest"
}

# oci_image FILE NAME ARCH USER PATH=FILE...: an image of a layer for each file, whose first one is the program, for a
# machine like x86_64, run as this user. Writes the archive to FILE, and prints the image's digest.
oci_image() {
    local file=$1 name=$2 user=$4 arch work item layers='' differences='' program=/${5%%=*} digest size
    case $3 in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) die "no image for $3" ;; esac
    shift 4
    work=$(mktemp -d)
    mkdir -p "$work/image/blobs/sha256"
    for item in "$@"; do
        install -D "${item#*=}" "$work/root/${item%%=*}"
        oci_pack "$work/root" >"$work/layer"
        differences+=${differences:+,}'"sha256:'$(sha256sum "$work/layer" | cut -d' ' -f1)'"'
        # Compressed here, so that nobody else does it otherwise.
        gzip -n "$work/layer"
        size=$(stat -c %s "$work/layer.gz")
        digest=$(oci_blob "$work/image" "$work/layer.gz")
        layers+=${layers:+,}'{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"'$digest'","size":'$size'}'
        rm -r "$work/root"
    done
    printf '{"architecture":"%s","os":"linux","config":{"User":"%s","Env":["PATH=/usr/bin"],"Entrypoint":["%s"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$arch" "$user" "$program" "$differences" >"$work/config"
    size=$(stat -c %s "$work/config")
    digest=$(oci_blob "$work/image" "$work/config")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[%s]}' \
        "$digest" "$size" "$layers" >"$work/manifest"
    size=$(stat -c %s "$work/manifest")
    digest=$(oci_blob "$work/image" "$work/manifest")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
        "$digest" "$size" "$arch" "$name" "${name##*:}" >"$work/image/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
    oci_pack "$work/image" >"$file"
    rm -r "$work"
    echo "$digest"
}
