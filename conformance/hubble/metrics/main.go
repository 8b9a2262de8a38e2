// Command metrics counts recorded flows with Cilium's own handlers, and prints what Prometheus would
// read: what ours are compared with.
//
// Arguments: a file of JSON lines, and the list of metrics as cilium-agent's --hubble-metrics has it, or
// the path of a file as its --hubble-dynamic-metrics-config-path.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/cilium/cilium/pkg/hubble/metrics"
	"github.com/cilium/cilium/pkg/hubble/metrics/api"

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

	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var response observerpb.GetFlowsResponse
		if err := protojson.Unmarshal(lines.Bytes(), &response); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := processor.ProcessFlow(context.Background(), response.GetFlow()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
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
