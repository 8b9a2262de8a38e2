package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"

	certutil "k8s.io/client-go/util/cert"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// What the administrator shows; the server listens on loopback only.
const token = "administrator"

// standalone serves Kubernetes' API with its etcd in one process and on loopback: real watches,
// authorisation and errors, without nodes.
//
// Arguments: a folder for what must outlast it, the API server's port, and further flags of
// kube-apiserver. It writes DIR/kubeconfig, the administrator's. It ends with its stdin, and goes on
// from where it was when it is started on the same folder.
func standalone(arguments []string) error {
	if len(arguments) < 2 {
		return errors.New("usage: cluster standalone DIR PORT [FLAG]...")
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	dir, port, flags := arguments[0], arguments[1], arguments[2:]
	storage, err := freeEtcd(dir)
	if err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	if _, err := os.Stat(path("kubeconfig")); errors.Is(err, os.ErrNotExist) {
		if err := credentials(dir, port); err != nil {
			return err
		}
	}
	server := apiserver.NewAPIServerCommand()
	server.SetArgs(append([]string{
		"--etcd-servers=" + storage,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + port,
		"--tls-cert-file=" + path("server.crt"),
		"--tls-private-key-file=" + path("server.key"),
		"--token-auth-file=" + path("tokens.csv"),
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + path("accounts.key"),
		"--service-account-key-file=" + path("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		// Pods here have no service account: nobody would run them with it.
		"--disable-admission-plugins=ServiceAccount",
	}, flags...))
	return server.Execute()
}

// freeEtcd starts the storage on a free port and says where it is.
func freeEtcd(dir string) (string, error) {
	clients, err := free()
	if err != nil {
		return "", err
	}
	peers, err := free()
	if err != nil {
		return "", err
	}
	if _, err := startEtcd(filepath.Join(dir, "etcd"), clients, peers); err != nil {
		return "", err
	}
	return clients.String(), nil
}

func free() (url.URL, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return url.URL{}, err
	}
	defer listener.Close()
	return url.URL{Scheme: "http", Host: listener.Addr().String()}, nil
}

// credentials writes what server and administrator need to know each other.
func credentials(dir, port string) error {
	certificate, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		return err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	accountsKey, err := x509.MarshalECPrivateKey(accounts)
	if err != nil {
		return err
	}
	kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: administrator}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:%s", certificate-authority-data: %s}}]
users: [{name: administrator, user: {token: %s}}]
`, port, base64.StdEncoding.EncodeToString(certificate), token)
	for name, text := range map[string][]byte{
		"server.crt":   certificate,
		"server.key":   key,
		"accounts.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: accountsKey}),
		"tokens.csv":   []byte(token + ",administrator,1,\"system:masters\"\n"),
		"kubeconfig":   []byte(kubeconfig),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
