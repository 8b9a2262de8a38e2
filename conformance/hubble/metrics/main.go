// Command metrics counts recorded flows with Cilium's own handlers, and prints what Prometheus would
// read: what ours are compared with.
//
// Arguments: a file of JSON lines, and the list of metrics as cilium-agent's --hubble-metrics has it, or
// the path of a file as its --hubble-dynamic-metrics-config-path.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"sigs.k8s.io/yaml"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/cilium/cilium/pkg/hubble/metrics"
	"github.com/cilium/cilium/pkg/hubble/metrics/api"
	"meridian/conformance/hubble/recorded"

	_ "github.com/cilium/cilium/pkg/hubble/metrics/drop"
	_ "github.com/cilium/cilium/pkg/hubble/metrics/flow"
	_ "github.com/cilium/cilium/pkg/hubble/metrics/flows-to-world"
	_ "github.com/cilium/cilium/pkg/hubble/metrics/icmp"
	_ "github.com/cilium/cilium/pkg/hubble/metrics/port-distribution"
	_ "github.com/cilium/cilium/pkg/hubble/metrics/tcp"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: metrics FLOWS METRICS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "metrics:", err)
		os.Exit(1)
	}
}

func run(path, wanted string) error {
	config := api.ParseStaticMetricsConfig(strings.Fields(wanted))
	if strings.HasPrefix(wanted, "/") {
		text, err := os.ReadFile(wanted)
		if err != nil {
			return err
		}
		config = &api.Config{}
		if err := yaml.Unmarshal(text, config); err != nil {
			return err
		}
	}
	registry := prometheus.NewRegistry()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	handlers, err := metrics.InitMetricHandlers(logger, registry, config)
	if err != nil {
		return err
	}
	processor := metrics.NewStaticFlowProcessor(logger, *handlers)

	err = recorded.Each(path, func(flow *flowpb.Flow) error {
		return processor.ProcessFlow(context.Background(), flow)
	})
	if err != nil {
		return err
	}
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	encoder := expfmt.NewEncoder(os.Stdout, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return err
		}
	}
	return nil
}
