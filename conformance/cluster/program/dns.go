package main

import (
	"context"
	"errors"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	core "k8s.io/client-go/listers/core/v1"
	slices "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// names answers for the services of the cluster.
type names struct {
	services core.ServiceLister
	slices   slices.EndpointSliceLister
}

// dns answers for services by name, as the cluster's DNS does, over UDP. Arguments: a kubeconfig, and
// the address to listen on.
func dns(arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: cluster dns KUBECONFIG ADDRESS:PORT")
	}
	config, err := clientcmd.BuildConfigFromFlags("", arguments[0])
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	names := names{factory.Core().V1().Services().Lister(), factory.Discovery().V1().EndpointSlices().Lister()}
	factory.Core().V1().Services().Informer()
	factory.Discovery().V1().EndpointSlices().Informer()
	forever := context.Background().Done()
	factory.Start(forever)
	factory.WaitForCacheSync(forever)
	socket, err := net.ListenPacket("udp", arguments[1])
	if err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		var query dnsmessage.Message
		if err := query.Unpack(buffer[:n]); err != nil || len(query.Questions) != 1 {
			continue
		}
		if reply, err := names.answer(&query); err == nil {
			_, _ = socket.WriteTo(reply, from)
		}
	}
}

// answer packs the reply to a query of one question.
func (n names) answer(query *dnsmessage.Message) ([]byte, error) {
	question := query.Questions[0]
	reply := dnsmessage.Message{Questions: query.Questions, Header: dnsmessage.Header{
		ID: query.ID, Response: true, Authoritative: true, RecursionDesired: query.RecursionDesired,
		RecursionAvailable: true, RCode: dnsmessage.RCodeNameError,
	}}
	addresses, known := n.lookup(question.Name.String())
	if known {
		reply.RCode = dnsmessage.RCodeSuccess
	}
	head := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 5}
	for _, address := range addresses {
		v4 := address.To4()
		switch {
		case v4 != nil && question.Type == dnsmessage.TypeA:
			body := &dnsmessage.AResource{A: [4]byte(v4)}
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: head, Body: body})
		case v4 == nil && question.Type == dnsmessage.TypeAAAA:
			body := &dnsmessage.AAAAResource{AAAA: [16]byte(address)}
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: head, Body: body})
		}
	}
	return reply.Pack()
}

// lookup finds the addresses behind SERVICE.NAMESPACE.svc.cluster.local: the service's own, or its
// endpoints' where it is headless.
func (n names) lookup(name string) (addresses []net.IP, known bool) {
	words := strings.Split(strings.ToLower(strings.TrimSuffix(name, ".")), ".")
	if len(words) != 5 || strings.Join(words[2:], ".") != "svc.cluster.local" {
		return nil, false
	}
	service, err := n.services.Services(words[1]).Get(words[0])
	if err != nil {
		return nil, false
	}
	for _, text := range service.Spec.ClusterIPs {
		if address := net.ParseIP(text); address != nil {
			addresses = append(addresses, address)
		}
	}
	if len(addresses) > 0 {
		return addresses, true
	}
	found, err := n.slices.EndpointSlices(words[1]).List(labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: words[0]}))
	if err != nil {
		return nil, true
	}
	for _, slice := range found {
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
				continue
			}
			for _, text := range endpoint.Addresses {
				if address := net.ParseIP(text); address != nil {
					addresses = append(addresses, address)
				}
			}
		}
	}
	return addresses, true
}
