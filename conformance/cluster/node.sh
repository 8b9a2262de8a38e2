#!/usr/bin/env bash
# The first process of a node: node.sh NAME ADDRESS ZONE REGION, in mount, PID, network, IPC, UTS and cgroup
# namespaces of its own. Its files are an overlay over the machine's own whose upper layer is in memory, so
# that they go with its processes: to kill the first one is to pull the plug.
#
# DIR, CLUSTER, GATEWAY, PODS, PROXY, CILIUM, UPGRADE, DUAL and HIERARCHIES come from scripts/cluster.sh.
set -euo pipefail

name=$1 address=$2 zone=$3 region=$4
addresses=$address
[ "$DUAL" = no ] || addresses+=,fd00:172:30::1${name#node-}
base=$DIR/nodes/$name
mkdir -p "$base"
mount -t tmpfs -o mode=755,size=6g "$name" "$base"
mkdir "$base/upper" "$base/work" "$base/root" "$base/disk"
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$base/root"
cd "$base/root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
for hierarchy in $HIERARCHIES; do
    mkdir "sys/fs/cgroup/$hierarchy"
    case $hierarchy in
        unified) mount -t cgroup2 cgroup2 sys/fs/cgroup/unified ;;
        *) mount -t cgroup -o "$hierarchy" cgroup "sys/fs/cgroup/$hierarchy" ;;
    esac
done

# shared FOLDER: a folder of the machine as it is, on whatever file system it is.
shared() {
    mkdir -p ".$1"
    mount --bind "$1" ".$1"
}
shared "$DIR"
shared "$(dirname "$CLUSTER")"

# on_disk FOLDER: for files that overlayfs can't hold, and folders whose changes are watched.
on_disk() {
    mkdir -p "$1" "$base/disk/$1"
    mount --bind "$base/disk/$1" "$1"
}
on_disk etc/cni/net.d
on_disk var/lib/containerd
on_disk var/lib/kubelet
on_disk var/lib/cni
on_disk var/log/pods

# pretend SETTING VALUE: shows a setting of the whole machine as a program wants it, and keeps what is written.
pretend() {
    local file=$base/disk/${1//\//_}
    [ -e "proc/sys/$1" ] || return 0
    echo "$2" >"$file"
    mount --bind "$file" "proc/sys/$1"
}
# The kubelet sets these.
pretend vm/overcommit_memory 1
pretend vm/panic_on_oom 0
pretend kernel/panic 10
pretend kernel/panic_on_oops 1
pretend kernel/keys/root_maxkeys 1000000
pretend kernel/keys/root_maxbytes 25000000
if [ -n "$CILIUM" ]; then
    # cilium-agent sets these. Nobody could undo the first.
    pretend kernel/unprivileged_bpf_disabled 1
    pretend kernel/timer_migration 0
    pretend net/core/fb_tunnels_only_for_init_net 2
    pretend net/core/bpf_jit_enable 1
    shared "$CILIUM"
    on_disk var/lib/cilium
    cp -r "$CILIUM/bpf" var/lib/cilium/
    [ -z "$UPGRADE" ] || shared "$UPGRADE"
    ln -s "$CILIUM/cilium-cni" usr/lib/cni/cilium-cni
    ln -s "$CILIUM/daemon" usr/local/bin/cilium-agent
    ln -s "$(command -v clang-19)" usr/local/bin/clang
fi

# As docs/install.md has it for runtimes whose own profile denies bpf(2).
install -D -m 644 "$(dirname "$0")/../../helm/meridian/files/seccomp-agent.json" "$base/disk/var/lib/kubelet/seccomp/meridian-agent.json"

mkdir -p run/lock run/netns var/log/containers mnt etc/node
echo "$name" >etc/hostname
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" >etc/hosts
rm -f etc/resolv.conf
echo "nameserver $GATEWAY" >etc/resolv.conf
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
hostname "$name"
pivot_root . mnt
cd /
umount -l /mnt
mount --make-rshared /
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

cat >/etc/node/containerd.toml <<'END'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "meridian.test/traffic:1"
  # A profile would be loaded for the whole machine.
  disable_apparmor = true
  # A root without CAP_SYS_RESOURCE can't make a process less likely to be killed.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
END
if [ -z "$CILIUM" ]; then
    echo '    conf_template = "/etc/node/cni.template"' >>/etc/node/containerd.toml
    cat >/etc/node/cni.template <<'END'
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local",
            "ranges": [{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}],
            "routes": [{{range $i, $route := .Routes}}{{if $i}}, {{end}}{"dst": "{{$route}}"}{{end}}]}}]}
END
fi
cat >/etc/node/kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
clusterDNS: [$GATEWAY]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi}
shutdownGracePeriod: 0s
END
cat >/etc/node/proxy.yaml <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $name
clientConnection: {kubeconfig: $DIR/control-plane/admin.kubeconfig}
clusterCIDR: $PODS
# Zero leaves conntrack's limits, which are the whole machine's, alone.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END

log=$DIR/log/$name
containerd --config /etc/node/containerd.toml >"$log-containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.2; done
for image in "$DIR"/images/*.tar; do
    ctr --namespace k8s.io images import "$image" >>"$log-images.log" 2>&1
done
if [ "$PROXY" = yes ]; then
    "$CLUSTER" proxy --config /etc/node/proxy.yaml >"$log-proxy.log" 2>&1 &
fi
"$CLUSTER" kubelet --config /etc/node/kubelet.yaml --kubeconfig "$DIR/control-plane/$name.kubeconfig" \
    --hostname-override "$name" --node-ip "$addresses" \
    --node-labels "topology.kubernetes.io/zone=$zone,topology.kubernetes.io/region=$region" >"$log-kubelet.log" 2>&1 &
trap 'exit 0' TERM
# The first process is the parent of all that have lost theirs.
while :; do
    wait -n || true
    sleep 1
done
