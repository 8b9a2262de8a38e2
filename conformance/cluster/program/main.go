// Command cluster is every part of a Kubernetes cluster in one program, linked once: a real cluster on
// one machine, for tests. Its first argument names the part.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// The parts that are Kubernetes' own commands.
var commands = map[string]func() *cobra.Command{
	"apiserver":          apiserver.NewAPIServerCommand,
	"controller-manager": manager.NewControllerManagerCommand,
	"scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"proxy":              proxy.NewProxyCommand,
	"kubelet":            func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

// The parts that are written here.
var ours = map[string]func(arguments []string) error{
	"etcd":       etcd,
	"dns":        dns,
	"standalone": standalone,
}

func main() {
	part := ""
	if len(os.Args) > 1 {
		part = os.Args[1]
	}
	if command := commands[part]; command != nil {
		os.Args = os.Args[1:]
		os.Exit(cli.Run(command()))
	}
	run := ours[part]
	if run == nil {
		names := slices.Sorted(maps.Keys(commands))
		names = append(names, slices.Sorted(maps.Keys(ours))...)
		fmt.Fprintf(os.Stderr, "usage: cluster %s [ARGUMENT]...\n", strings.Join(names, "|"))
		os.Exit(2)
	}
	if err := run(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", part, err)
		os.Exit(1)
	}
}
