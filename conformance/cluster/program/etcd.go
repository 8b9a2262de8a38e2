package main

import (
	"errors"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd serves the storage until it fails. Arguments: its folder, the address for clients and the one
// for peers, of which there are none.
func etcd(arguments []string) error {
	if len(arguments) != 3 {
		return errors.New("usage: cluster etcd DIR CLIENT-URL PEER-URL")
	}
	clients, err := url.Parse(arguments[1])
	if err != nil {
		return err
	}
	peers, err := url.Parse(arguments[2])
	if err != nil {
		return err
	}
	server, err := startEtcd(arguments[0], *clients, *peers)
	if err != nil {
		return err
	}
	return <-server.Err()
}

// startEtcd returns once the storage answers.
func startEtcd(dir string, clients, peers url.URL) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "error"
	// The cluster ends with the test: nothing has to outlast a power failure.
	config.UnsafeNoFsync = true
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peers}, []url.URL{peers}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case err := <-server.Err():
		return nil, err
	case <-time.After(time.Minute):
		return nil, errors.New("etcd did not start within a minute")
	}
}
