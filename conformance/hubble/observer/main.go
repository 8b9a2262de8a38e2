// Command observer serves recorded flows with Cilium's own observer: what `meridian replay` is
// compared with.
//
// Arguments: a file of JSON lines, an address to listen on, the capacity of the ring; and, for TLS, the
// files of a certificate, its key and the clients' authority. It prints a line when it listens, and ends
// with its stdin.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/container"
	"github.com/cilium/cilium/pkg/hubble/observer"
	"github.com/cilium/cilium/pkg/hubble/observer/namespace"
	"github.com/cilium/cilium/pkg/hubble/observer/observeroption"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"meridian/conformance/hubble/recorded"
)

func main() {
	if len(os.Args) != 4 && len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: observer FLOWS ADDRESS CAPACITY [CERTIFICATE KEY CLIENT_AUTHORITY]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "observer:", err)
		os.Exit(1)
	}
}

func run(path, address, capacity string, tlsFiles []string) error {
	size, err := strconv.Atoi(capacity)
	if err != nil {
		return err
	}
	ring, err := container.NewCapacity(size)
	if err != nil {
		return err
	}
	namespaces := namespace.NewManager()
	server, err := observer.NewLocalServer(
		nil, namespaces, slog.New(slog.NewTextHandler(io.Discard, nil)), observeroption.WithMaxFlows(ring))
	if err != nil {
		return err
	}
	if err := load(path, server, namespaces); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	options, err := serverOptions(tlsFiles)
	if err != nil {
		return err
	}
	served := grpc.NewServer(options...)
	observerpb.RegisterObserverServer(served, server)
	healthy := health.NewServer()
	healthy.SetServingStatus("hubble.server.Observer", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(served, healthy)
	fmt.Println("listening on", listener.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		served.Stop()
	}()
	return served.Serve(listener)
}

func serverOptions(tlsFiles []string) ([]grpc.ServerOption, error) {
	if len(tlsFiles) == 0 {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(tlsFiles[0], tlsFiles[1])
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(tlsFiles[2])
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority)
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
		MinVersion:   tls.VersionTLS13,
	}))}, nil
}

func load(path string, server *observer.LocalObserverServer, namespaces namespace.Manager) error {
	var newest *flowpb.Flow
	err := recorded.Each(path, func(flow *flowpb.Flow) error {
		newest = flow
		for _, end := range []*flowpb.Endpoint{newest.GetSource(), newest.GetDestination()} {
			if end.GetNamespace() != "" {
				namespaces.AddNamespace(&observerpb.Namespace{Namespace: end.GetNamespace()})
			}
		}
		server.GetRingBuffer().Write(&v1.Event{Timestamp: newest.GetTime(), Event: newest})
		return nil
	})
	// This ring shows a flow only when another one has come.
	server.GetRingBuffer().Write(&v1.Event{Timestamp: newest.GetTime(), Event: &flowpb.Flow{Time: newest.GetTime()}})
	return err
}
