# shellcheck shell=bash
# The ways to run Cilium that are tried, and what its operator and agents are told in each. Sourced by
# scripts/cluster.sh, which has PODS and PROXY from here.
# shellcheck disable=SC2034 # what is set here is used there

CILIUM_MODES=(default tunnel-ebpf native-ebpf native-legacy native-iptables endpoint-slices multi-pool
    dual-stack dual-stack-ebpf dsr host-firewall upgrade relay)

# cilium_mode MODE: sets OPERATOR and AGENT, their flags, PROXY, whether kube-proxy runs, PODS, where pods are, DUAL,
# whether everything has IPv6 beside IPv4, and UPGRADE, the folder of the agent that is upgraded to.
cilium_mode() {
    local native=(--routing-mode=native --auto-direct-node-routes=true)
    local tunnel=(--routing-mode=tunnel --tunnel-protocol=vxlan)
    local replaced=(--kube-proxy-replacement=true --enable-bpf-masquerade=true)
    PODS=10.0.0.0/8 PROXY=no DUAL=no UPGRADE=''
    OPERATOR=(--ipam=cluster-pool "--cluster-pool-ipv4-cidr=$PODS" --cluster-pool-ipv4-mask-size=24)
    AGENT=(--ipam=cluster-pool)
    native+=("--ipv4-native-routing-cidr=$PODS")
    local six=fd00:10::/104
    local dual=(--enable-ipv6=true --cluster-pool-ipv6-cidr="$six" --cluster-pool-ipv6-mask-size=120)
    case $1 in
        # Nothing that Cilium doesn't do by itself: VXLAN, kube-proxy, masquerade by iptables, and host routing
        # through the stack.
        default | relay) PROXY=yes ;;
        tunnel-ebpf) AGENT+=("${tunnel[@]}" "${replaced[@]}") ;;
        native-ebpf) AGENT+=("${native[@]}" "${replaced[@]}") ;;
        native-legacy) AGENT+=("${native[@]}" "${replaced[@]}" --enable-host-legacy-routing=true) ;;
        native-iptables)
            AGENT+=("${native[@]}")
            PROXY=yes
            ;;
        endpoint-slices)
            OPERATOR+=(--enable-cilium-endpoint-slice=true)
            AGENT+=(--enable-cilium-endpoint-slice=true)
            PROXY=yes
            ;;
        multi-pool)
            OPERATOR=(--ipam=multi-pool "--auto-create-cilium-pod-ip-pools=default=ipv4-cidrs:$PODS;ipv4-mask-size:27")
            AGENT=(--ipam=multi-pool "${native[@]}" "${replaced[@]}")
            ;;
        dual-stack)
            OPERATOR+=("${dual[@]}")
            AGENT+=(--enable-ipv6=true)
            PROXY=yes DUAL=yes
            ;;
        dual-stack-ebpf)
            OPERATOR+=("${dual[@]}")
            AGENT+=("${native[@]}" "${replaced[@]}" --enable-ipv6=true "--ipv6-native-routing-cidr=$six")
            DUAL=yes
            ;;
        # A backend answers the client by itself, which it finds in an IP option.
        dsr) AGENT+=("${native[@]}" "${replaced[@]}" --bpf-lb-mode=dsr --bpf-lb-dsr-dispatch=opt) ;;
        host-firewall)
            AGENT+=("${tunnel[@]}" --enable-host-firewall=true)
            PROXY=yes
            ;;
        upgrade)
            UPGRADE=$("$ROOT/scripts/conformance.sh" cilium-upgrade)
            PROXY=yes
            ;;
        *) die "Cilium's mode is one of ${CILIUM_MODES[*]}, not $1" ;;
    esac
}

# start_operator and start_agent NODE [FLAG...] start what scripts/cluster.sh's `start_in` can find again.
start_operator() {
    start_in control-plane cilium-operator "$CILIUM/operator" --k8s-kubeconfig-path="$ADMIN" --k8s-namespace=kube-system \
        --enable-ipv4 --enable-ipv6=false --identity-allocation-mode=crd --unmanaged-pod-watcher-interval=0 \
        --leader-election-lease-duration=15s --set-cilium-node-taints=false "${OPERATOR[@]}"
}

start_agent() {
    local node=$1
    shift
    # The node's own link says which version it is.
    start_in "$node" "$node-cilium" env K8S_NODE_NAME="$node" KUBERNETES_SERVICE_HOST="$GATEWAY" KUBERNETES_SERVICE_PORT=6443 \
        cilium-agent --k8s-kubeconfig-path="$ADMIN" --k8s-namespace=kube-system --cluster-name=default \
        --enable-ipv4 --enable-ipv6=false --identity-allocation-mode=crd --enable-ipv4-masquerade=true \
        --lib-dir=/var/lib/cilium --state-dir=/var/run/cilium --bpf-root=/sys/fs/bpf --cgroup-root=/sys/fs/cgroup/unified \
        --devices=eth0 --enable-l7-proxy=false --enable-envoy-config=false \
        --enable-health-checking=false --enable-endpoint-health-checking=false \
        --enable-hubble=true --hubble-listen-address=:4244 --hubble-disable-tls=true --prometheus-serve-addr=:9962 \
        --cni-exclusive=true --write-cni-conf-when-ready=/etc/cni/net.d/05-cilium.conflist --read-cni-conf= \
        "${AGENT[@]}" "$@"
}
