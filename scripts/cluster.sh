#!/usr/bin/env bash
# A Kubernetes cluster of three nodes in three zones on this machine: real parts, each node in namespaces of its own.
#
#   cluster.sh up [--cilium MODE]     brings it up, the pod network from the bridge plugin or from Cilium
#   cluster.sh demo [--cilium MODE]   brings it up with Meridian and pods that talk, and prints commands to try
#   cluster.sh kubectl|helm|hubble|top ARGUMENT...
#   cluster.sh on NODE COMMAND...     runs a command on a node, node-1 to node-3; `outside` is a machine beside them
#   cluster.sh lose NODE              cuts a node's power
#   cluster.sh boot NODE              starts it again; `reboot` does both
#   cluster.sh cilium stop|start|upgrade NODE [FLAG...]
#                                     stops a node's cilium-agent, starts it with further flags, or replaces it by the
#                                     next version in the mode `upgrade`; `dbg` is cilium-dbg
#   cluster.sh down                   removes everything, also the remains of a cluster that was killed
#
# Clusters with different names in MERIDIAN_CLUSTER run side by side. MERIDIAN_BINARY names a static binary for
# Meridian's image; by default the script builds one.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=conformance/cilium/modes.sh
. "$ROOT/conformance/cilium/modes.sh"
# shellcheck source=scripts/oci.sh
. "$ROOT/scripts/oci.sh"

NAME=${MERIDIAN_CLUSTER:-meridian-cluster}
DIR=$CACHE/clusters/$NAME
ADMIN=$DIR/control-plane/admin.kubeconfig
# The machine beside the nodes: it has the control plane, the cluster's DNS and the bridge that joins the nodes.
GATEWAY=172.30.0.1
ZONES=("eu-1a eu-1" "eu-1b eu-1" "eu-2a eu-2")

MACHINES=(control-plane node-1 node-2 node-3)

images() {
    local arch
    arch=$(uname -m)
    mkdir -p "$DIR/images"
    # In the background: each takes a while to compress.
    oci_image "$DIR/images/traffic.tar" meridian.test/traffic:1 "$arch" 0:0 usr/bin/traffic="$TRAFFIC" >/dev/null &
    oci_image "$DIR/images/relay.tar" meridian.test/hubble-relay:v1.19.4 "$arch" 0:0 usr/bin/hubble-relay="$RELAY" >/dev/null &
    oci_image "$DIR/images/meridian.tar" meridian.test/meridian:0.1.0 "$arch" 65532:65532 meridian="$BINARY" >/dev/null &
    # Another image with the same program, to be upgraded to.
    oci_image "$DIR/images/meridian-next.tar" meridian.test/meridian:0.1.0-next "$arch" 65532:65532 meridian="$BINARY" \
        next="$ROOT/LICENSE" >/dev/null &
    wait
}

# kubeconfig FILE TOKEN
kubeconfig() {
    cat >"$1" <<END
apiVersion: v1
kind: Config
current-context: $NAME
contexts: [{name: $NAME, context: {cluster: $NAME, user: user}}]
clusters: [{name: $NAME, cluster: {server: "https://$GATEWAY:6443", certificate-authority: $DIR/control-plane/ca.crt}}]
users: [{name: user, user: {token: $2}}]
END
}

# start_in MACHINE LOG COMMAND...: starts a command in the machine's cgroups, whose processes end with the cluster.
start_in() {
    local machine=$1 log=$2
    shift 2
    nice -n "${MERIDIAN_CLUSTER_NICE:-10}" "${BASH_SOURCE[0]}" on "$machine" setsid "$@" >>"$DIR/log/$log.log" 2>&1 </dev/null &
    echo $! >"$DIR/pids/$log"
    disown
}

# enter MACHINE COMMAND...: replaces this process by a command on a machine.
enter() {
    local machine=$1 hierarchy leader inside
    shift
    for hierarchy in $(hierarchies); do echo $BASHPID >"/sys/fs/cgroup/$hierarchy/$NAME-$machine/cgroup.procs"; done
    case $machine in
        control-plane) exec nsenter --net="/run/netns/$NAME-control-plane" "$@" ;;
        *)
            leader=$(cat "$DIR/pids/$machine")
            inside=$(xargs -n 1 <"/proc/$leader/task/$leader/children" | head -n 1)
            [ -n "$inside" ] || die "$machine has no first process"
            exec nsenter --target "$inside" --mount --uts --ipc --net --pid --cgroup --root --wd "$@"
            ;;
    esac
}

# machine NAME: the network namespace and the cgroups of a node or of the control plane.
machine() {
    local hierarchy setting group
    ip netns add "$NAME-$1"
    ip -n "$NAME-$1" link set lo up
    for hierarchy in $(hierarchies); do
        group=/sys/fs/cgroup/$hierarchy/$NAME-$1
        mkdir -p "$group"
        # A new group of this hierarchy takes no process before its processors and memory are set.
        [ "$hierarchy" != cpuset ] || for setting in cpus mems; do
            cat "/sys/fs/cgroup/cpuset/cpuset.$setting" >"$group/cpuset.$setting"
        done
    done
}

control_plane() {
    local part=$DIR/control-plane network=$NAME-control-plane i
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    local services=10.96.0.0/16 prefixes=(--cluster-cidr=10.244.0.0/16)
    mkdir -p "$part"
    machine control-plane
    ip -n "$network" link add bridge0 type bridge
    ip -n "$network" addr add "$GATEWAY/24" dev bridge0
    ip -n "$network" link set bridge0 up
    if [ "$DUAL" = yes ]; then
        ip -n "$network" addr add "fd00:172:30::1/64" dev bridge0 nodad
        services+=,fd00:96::/112
        prefixes=("--cluster-cidr=10.244.0.0/16,fd00:244::/56" --node-cidr-mask-size-ipv6=64)
    fi
    {
        openssl req -x509 "${key[@]}" -days 30 -subj /CN=cluster-ca -keyout "$part/ca.key" -out "$part/ca.crt"
        openssl req "${key[@]}" -subj /CN=apiserver -keyout "$part/server.key" -out "$part/server.csr"
        openssl x509 -req -in "$part/server.csr" -CA "$part/ca.crt" -CAkey "$part/ca.key" -CAcreateserial -days 30 \
            -out "$part/server.crt" -extfile <(echo "subjectAltName=IP:$GATEWAY,IP:10.96.0.1,IP:127.0.0.1,DNS:kubernetes.default.svc")
        openssl ecparam -name prime256v1 -genkey -noout -out "$part/accounts.key"
    } 2>"$DIR/log/openssl.log"
    echo 'admin,administrator,1,"system:masters"' >"$part/tokens.csv"
    kubeconfig "$ADMIN" admin
    for i in "${!ZONES[@]}"; do
        i=$((i + 1))
        echo "node-$i,system:node:node-$i,node-$i,\"system:nodes\"" >>"$part/tokens.csv"
        kubeconfig "$part/node-$i.kubeconfig" "node-$i"
    done
    start_in control-plane etcd "$CLUSTER" etcd "$part/etcd" http://127.0.0.1:2379 http://127.0.0.1:2380
    start_in control-plane apiserver "$CLUSTER" apiserver --etcd-servers=http://127.0.0.1:2379 \
        --bind-address=0.0.0.0 --advertise-address="$GATEWAY" --secure-port=6443 \
        --tls-cert-file="$part/server.crt" --tls-private-key-file="$part/server.key" --token-auth-file="$part/tokens.csv" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
        --service-account-issuer=https://kubernetes.default.svc --service-account-signing-key-file="$part/accounts.key" \
        --service-account-key-file="$part/accounts.key" --service-cluster-ip-range="$services" \
        --kubelet-preferred-address-types=InternalIP
    wait_until "the API server" kubectl get --raw=/readyz
    # As with kubeadm, Kubernetes assigns the nodes prefixes beside Cilium, too.
    start_in control-plane controller-manager "$CLUSTER" controller-manager --kubeconfig="$ADMIN" --leader-elect=false \
        --allocate-node-cidrs "${prefixes[@]}" --service-cluster-ip-range="$services" \
        --node-monitor-grace-period=20s \
        --service-account-private-key-file="$part/accounts.key" --root-ca-file="$part/ca.crt" --bind-address=127.0.0.1
    start_in control-plane scheduler "$CLUSTER" scheduler --kubeconfig="$ADMIN" --leader-elect=false --bind-address=127.0.0.1
    start_in control-plane dns "$CLUSTER" dns "$ADMIN" "$GATEWAY:53"
}

# wait_until WHAT COMMAND...: until the command succeeds, two minutes at most.
wait_until() {
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "$what: not within two minutes; see $DIR/log"
        sleep 0.3
    done
}

# node NUMBER
node() {
    local number=$1 name=node-$1 zone region address=172.30.0.1$1
    read -r zone region <<<"${ZONES[number - 1]}"
    machine "$name"
    # A node that is started again has the address of its card still, which its neighbours know.
    ip -n "$NAME-control-plane" link add "$name" type veth peer name eth0 address "02:00:ac:1e:00:1$1" netns "$NAME-$name"
    ip -n "$NAME-control-plane" link set "$name" master bridge0 up
    ip -n "$NAME-$name" addr add "$address/24" dev eth0
    ip -n "$NAME-$name" link set eth0 up
    ip -n "$NAME-$name" route add default via "$GATEWAY"
    if [ "$DUAL" = yes ]; then
        ip -n "$NAME-$name" addr add "fd00:172:30::1$1/64" dev eth0 nodad
        ip -n "$NAME-$name" route add default via fd00:172:30::1
    fi
    # Packets cross the bridge as on a wire: already segmented, without large ones.
    nsenter --net="/run/netns/$NAME-$name" ethtool -K eth0 tso off gso off gro off >/dev/null
    (
        export DIR CLUSTER GATEWAY PODS PROXY CILIUM UPGRADE DUAL HIERARCHIES
        for hierarchy in $HIERARCHIES; do echo $BASHPID >"/sys/fs/cgroup/$hierarchy/$NAME-$name/cgroup.procs"; done
        exec setsid nice -n "${MERIDIAN_CLUSTER_NICE:-10}" nsenter --net="/run/netns/$NAME-$name" \
            unshare --mount --uts --ipc --pid --cgroup --fork --kill-child \
            "$ROOT/conformance/cluster/node.sh" "$name" "$address" "$zone" "$region"
    ) >>"$DIR/log/$name.log" 2>&1 </dev/null &
    echo $! >"$DIR/pids/$name"
    disown
}

# routes: the routes to each node's pods, if no pod network has them. A machine may be off.
routes() {
    local to name prefix prefix6
    kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.spec.podCIDRs[0]} {.spec.podCIDRs[1]}{"\n"}{end}' |
        while read -r name prefix prefix6; do
            for to in "${MACHINES[@]}"; do
                if [ "$to" = "$name" ] || [ ! -e "/run/netns/$NAME-$to" ]; then continue; fi
                ip -n "$NAME-$to" route replace "$prefix" via "172.30.0.1${name#node-}"
                ip -n "$NAME-$to" route replace "$prefix6" via "fd00:172:30::1${name#node-}"
            done
        done
}

# all_have PATH: whether every Node object has a value at this JSON path.
all_have() {
    [ "$(kubectl get nodes -o jsonpath="{.items[*]$1}" | wc -w)" = ${#ZONES[@]} ]
}

kubectl() { command nsenter --net="/run/netns/$NAME-control-plane" kubectl --kubeconfig "$ADMIN" "$@"; }

# helm ARGUMENT...: helm 3, or the one that MERIDIAN_HELM_VERSION names.
helm() {
    HELM_CACHE_HOME=$DIR/helm HELM_CONFIG_HOME=$DIR/helm HELM_DATA_HOME=$DIR/helm \
        nsenter --net="/run/netns/$NAME-control-plane" "$("$ROOT/scripts/helm.sh" "${MERIDIAN_HELM_VERSION:-3}")" --kubeconfig "$ADMIN" "$@"
}

# groups MACHINE...: the existing cgroups of machines.
groups() {
    local hierarchy machine
    for hierarchy in $(hierarchies); do
        for machine in "$@"; do
            [ ! -d "/sys/fs/cgroup/$hierarchy/$NAME-$machine" ] || echo "/sys/fs/cgroup/$hierarchy/$NAME-$machine"
        done
    done
}

# end_machines MACHINE...: ends all processes in their cgroups and networks, and removes both.
end_machines() {
    local group pids machine end=$((SECONDS + 30))
    while :; do
        pids=$({
            for group in $(groups "$@"); do
                # A group may disappear while it is read.
                find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true
            done
            for machine in "$@"; do
                # A client of the cluster, such as helm, is only in the network.
                [ ! -e "/run/netns/$NAME-$machine" ] || ip netns pids "$NAME-$machine"
            done
        } | sort -u)
        [ -n "$pids" ] || break
        [ $SECONDS -lt $end ] || die "these processes don't end: $pids"
        # shellcheck disable=SC2086 # one word for each
        kill -KILL $pids 2>/dev/null || true
        sleep 0.2
    done
    for group in $(groups "$@"); do find "$group" -depth -type d -exec rmdir {} +; done
    for machine in "$@"; do
        [ ! -e "/run/netns/$NAME-$machine" ] || ip netns del "$NAME-$machine"
    done
}

down() {
    end_machines "${MACHINES[@]}"
    rm -rf "$DIR"
}

# up [--cilium MODE]
up() {
    local number obstacle start=$SECONDS
    CILIUM='' UPGRADE='' DUAL=yes PROXY=yes PODS=10.244.0.0/16,fd00:244::/56
    if [ "${1:-}" = --cilium ]; then
        cilium_mode "${2:?which mode}"
        CILIUM=$("$ROOT/scripts/conformance.sh" cilium)
        need_packages clang-19 ipset
    fi
    [ "$(id -u)" = 0 ] || die "nodes are namespaces: run as root"
    HIERARCHIES=$(hierarchies | xargs)
    obstacle=$(obstacle_to_nodes)
    [ -z "$obstacle" ] || die "$obstacle"
    need_packages containerd runc containernetworking-plugins nftables conntrack socat iptables ethtool iproute2 openssl curl
    # Any version works, and an installed one may be newer.
    type -P kubectl >/dev/null || need_packages kubernetes-client
    CLUSTER=$("$ROOT/scripts/conformance.sh" cluster)
    TRAFFIC=$("$ROOT/scripts/conformance.sh" traffic)
    RELAY=$("$ROOT/scripts/conformance.sh" relay)
    BINARY=${MERIDIAN_BINARY:-$("$ROOT/scripts/static.sh" --quick)}
    down
    mkdir -p "$DIR/log" "$DIR/pids" "$DIR/nodes"
    # Saved for later commands.
    MODE=${2:-}
    printf 'MODE=%q CILIUM=%q CLUSTER=%q BINARY=%q\n' "$MODE" "$CILIUM" "$CLUSTER" "$BINARY" >"$DIR/settings"
    images
    control_plane
    for number in 1 2 3; do node "$number"; done
    wait_until "the nodes' prefixes" all_have .spec.podCIDR
    wait_until "the nodes' addresses" all_have '.status.addresses[?(@.type=="Hostname")].address'
    if [ -n "$CILIUM" ]; then
        start_operator
        for number in 1 2 3; do start_agent "node-$number"; done
    else
        routes
    fi
    kubectl wait --for=condition=Ready nodes --all --timeout=180s >/dev/null
    say "three nodes are ready: $((SECONDS - start)) s"
}

# settings: the saved arguments and results of `up`.
settings() {
    [ -f "$DIR/settings" ] || die "there is no cluster $NAME: cluster.sh up"
    # shellcheck source=/dev/null
    . "$DIR/settings"
    HIERARCHIES=$(hierarchies | xargs)
    if [ -n "$CILIUM" ]; then cilium_mode "$MODE"; else UPGRADE='' DUAL=yes PROXY=yes PODS=10.244.0.0/16,fd00:244::/56; fi
}

# in_network MACHINE COMMAND...: runs a program of this machine in the network of another machine, services included.
in_network() {
    local machine=$1 hierarchy
    shift
    (
        # Only processes in the node's group reach Cilium's service addresses.
        for hierarchy in $(hierarchies); do echo $BASHPID >"/sys/fs/cgroup/$hierarchy/$NAME-$machine/cgroup.procs"; done
        exec nsenter --net="/run/netns/$NAME-$machine" "$@"
    )
}

# demo [--cilium MODE]: Meridian installed as in its README, hubble-relay, and pods that talk.
demo() {
    local preset=generic client=$ROOT/scripts/cluster.sh
    up "$@"
    [ -z "$CILIUM" ] || preset=cilium
    kubectl apply -f "$ROOT/conformance/cluster/workloads.yaml" >/dev/null
    helm install meridian "$ROOT/helm/meridian" --namespace meridian --create-namespace --wait --timeout 3m >/dev/null \
        --values "$ROOT/helm/meridian/presets/$preset.yaml" --set image.repository=meridian.test/meridian \
        --set hubble.tls.enabled=false --set controller.listenInCluster=true \
        --set relay.enabled=true --set relay.image.repository=meridian.test/hubble-relay
    kubectl -n billing create deployment report --image=meridian.test/traffic:1 -- \
        /usr/bin/traffic repeat 1s tcp:web.shop.svc:80:20000:60000:1 udp:web.shop.svc:80:500:3 >/dev/null
    cat <<END
Meridian counts in three zones. To look at it:

    $client kubectl -n meridian get pods -o wide
    $client hubble observe --follow --label meridian.io/locality=cross-zone
    $client top
    $client kubectl -n meridian logs -l app.kubernetes.io/component=controller --follow --prefix   # the pair log
    $client on node-1 bash

    $client down         # or: make cluster-down
END
}

# hubble ARGUMENT...: runs the stock client with the relay of all nodes.
hubble() {
    local relay
    relay=$(kubectl -n meridian get service meridian-relay -o jsonpath='{.spec.clusterIP}')
    in_network node-1 "$("$ROOT/scripts/conformance.sh" hubble)" --server "$relay:80" "$@"
}

# top ARGUMENT...: shows the whole cluster's traffic, from the controller.
top() {
    local address
    settings
    address=$(kubectl -n meridian get pods -l app.kubernetes.io/component=controller -o jsonpath='{.items[0].status.podIP}')
    in_network node-1 "$BINARY" top --server "$address:4344" "$@"
}

is_node() { [[ ${1:-} =~ ^node-[1-3]$ ]] || die "which node, node-1 to node-3"; }

# lose NODE
lose() {
    is_node "$@"
    end_machines "$1"
}

# boot NODE
boot() {
    settings
    is_node "$@"
    node "${1#node-}"
    if [ -n "$CILIUM" ]; then
        wait_until "$1's first process" enter_in_subshell "$1" true
        start_agent "$1"
    else
        wait_until "$1's address" routes
    fi
}

reboot() {
    lose "$@"
    boot "$@"
}

enter_in_subshell() { (enter "$@"); }

# cilium stop|upgrade NODE, cilium start NODE [FLAG...], cilium dbg NODE ARGUMENT...
cilium() {
    settings
    [ -n "$CILIUM" ] || die "this cluster is without Cilium"
    local what=$1 node=$2 agent
    shift 2
    case $what in
        start) start_agent "$node" "$@" ;;
        upgrade)
            [ -n "$UPGRADE" ] || die "the mode $MODE has no version to upgrade to"
            cilium stop "$node"
            # Its programs for the kernel, too: it compiles them.
            # shellcheck disable=SC2016 # the node's shell expands it
            "${BASH_SOURCE[0]}" on "$node" sh -ec 'rm -r /var/lib/cilium/bpf && cp -r "$1/bpf" /var/lib/cilium/
                ln -sf "$1/daemon" /usr/local/bin/cilium-agent' sh "$UPGRADE"
            start_agent "$node" "$@"
            ;;
        stop)
            agent=$(cat "$DIR/pids/$node-cilium")
            # cilium-agent is the child of the process that entered the node.
            xargs kill -TERM <"/proc/$agent/task/$agent/children"
            while kill -0 "$agent" 2>/dev/null; do sleep 0.2; done
            ;;
        dbg) (enter "$node" "$CILIUM/cilium-dbg" "$@") ;;
        *) die "cilium stop|start|upgrade|dbg NODE, not $what" ;;
    esac
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
    # Replaces this process, so that it can be ended.
    kubectl) exec nsenter --net="/run/netns/$NAME-control-plane" kubectl --kubeconfig "$ADMIN" "$@" ;;
    up | down | demo | helm | hubble | top | lose | boot | reboot | cilium) "$command" "$@" ;;
    on)
        [ "$1" != outside ] || set -- control-plane "${@:2}"
        enter "$@"
        ;;
    *)
        sed -n '/^#   /s/^#   //p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
