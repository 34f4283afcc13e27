// Command cluster writes the objects of a cluster to an API server, in place of kubelets and
// controllers: nodes, pods, services and DNS servers of the size that they have in production.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

// writing at a time.
const writing = 16

// images that a kubelet reports at most (nodeStatusMaxImages).
const images = 50

type object = map[string]any
type list = []any

type writer struct {
	client     http.Client
	url, token string
}

func main() {
	url := flag.String("url", "", "of the API server")
	caFile := flag.String("ca", "", "file of its authority")
	tokenFile := flag.String("token", "", "file of a token")
	nodes := flag.Int("nodes", 1, "nodes, each with a pod of NodeLocal DNSCache")
	pods := flag.Int("pods", 0, "pods on each node")
	services := flag.Int("services", 0, "services")
	servers := flag.Int("servers", 0, "pods of DNS servers")
	flag.Parse()
	log.SetFlags(0)
	w, err := newWriter(*url, *caFile, *tokenFile)
	if err == nil {
		err = w.writeAll(*nodes, *pods, *services, *servers)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func newWriter(url, caFile, tokenFile string) (*writer, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(tokenFile)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	return &writer{http.Client{Transport: &transport}, url, string(token)}, err
}

// writeAll writes all objects, several at a time.
func (w *writer) writeAll(nodes, pods, services, servers int) error {
	var tasks []func() error
	for n := range nodes {
		tasks = append(tasks, func() error { return w.node(n, pods) })
	}
	for n := range services {
		tasks = append(tasks, func() error { return w.service("default", fmt.Sprintf("service-%d", n), "shop") })
	}
	for n := range servers {
		tasks = append(tasks, func() error {
			return w.pod("kube-system", fmt.Sprintf("coredns-5d78c9869d-%05d", n), "kube-dns", n%nodes, false)
		})
	}
	tasks = append(tasks, func() error { return w.service("kube-system", "kube-dns", "kube-dns") })
	turns := make(chan struct{}, writing)
	failures := make(chan error, len(tasks))
	var running sync.WaitGroup
	for _, task := range tasks {
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			if err := task(); err != nil {
				failures <- err
			}
		})
	}
	running.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// node writes a node with its pods, as a kubelet does.
func (w *writer) node(n, pods int) error {
	var all list
	for i := range images {
		name := fmt.Sprintf("registry.example.test/team-%d/service-%02d", i%7, i)
		all = append(all, object{
			"names":     list{fmt.Sprintf("%s@sha256:%064x", name, i), name + ":v1.27.3-build.4711"},
			"sizeBytes": 100_000_000 + i,
		})
	}
	var conditions list
	for _, kind := range []string{"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"} {
		conditions = append(conditions, object{
			"type": kind, "status": "False", "reason": "KubeletHasSufficientResources",
			"message": "kubelet has sufficient resources available", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
			"lastTransitionTime": "2026-01-01T00:00:00Z",
		})
	}
	labels := object{}
	for _, label := range []string{
		"kubernetes.io/arch", "kubernetes.io/os", "kubernetes.io/hostname", "node.kubernetes.io/instance-type",
		"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "example.test/pool", "example.test/image",
	} {
		labels[label] = fmt.Sprintf("value-%d", n)
	}
	node := object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": fmt.Sprintf("node-%d", n), "labels": labels},
		"spec":     object{"podCIDR": fmt.Sprintf("10.%d.%d.0/24", 128+n/256, n%256)},
		"status": object{
			"addresses":  list{object{"type": "InternalIP", "address": hostAddress(n)}},
			"capacity":   object{"cpu": "16", "memory": "65536Mi", "pods": "110", "ephemeral-storage": "200Gi"},
			"conditions": conditions,
			"images":     all,
			"nodeInfo": object{
				"architecture": "amd64", "bootID": "a", "containerRuntimeVersion": "containerd://2.1.4",
				"kernelVersion": "6.12.0", "kubeProxyVersion": "", "kubeletVersion": "v1.37.2",
				"machineID": "b", "operatingSystem": "linux", "osImage": "Debian GNU/Linux 13", "systemUUID": "c",
			},
		},
	}
	if err := w.send(http.MethodPost, "nodes", node); err != nil {
		return err
	}
	for i := range pods {
		if err := w.pod("default", fmt.Sprintf("web-7d4b9c6f5-%04d-%03d", n, i), "web", n, false); err != nil {
			return err
		}
	}
	return w.pod("kube-system", fmt.Sprintf("node-local-dns-%05d", n), "node-local-dns", n, true)
}

func hostAddress(n int) string { return fmt.Sprintf("172.16.%d.%d", n/256, n%256) }

// pod writes a pod, and then its status, as a kubelet does.
func (w *writer) pod(namespace, name, app string, n int, hostNetwork bool) error {
	var env list
	for i := range 12 {
		env = append(env, object{"name": fmt.Sprintf("SETTING_%d", i), "value": fmt.Sprintf("value of setting %d", i)})
	}
	var containers, statuses list
	running := object{"running": object{"startedAt": "2026-01-01T00:00:02Z"}}
	for i, container := range []string{"main", "sidecar"} {
		containers = append(containers, object{
			"name": container, "image": "registry.example.test/team/" + container + ":v1.27.3-build.4711", "env": env,
			"resources":      object{"requests": object{"cpu": "100m", "memory": "128Mi"}, "limits": object{"memory": "256Mi"}},
			"volumeMounts":   list{object{"name": "config", "mountPath": "/etc/service"}},
			"readinessProbe": object{"httpGet": object{"path": "/ready", "port": 8080}},
			"livenessProbe":  object{"httpGet": object{"path": "/live", "port": 8080}},
		})
		statuses = append(statuses, object{
			"name": container, "image": "registry.example.test/team/" + container, "ready": true, "restartCount": 0,
			"imageID":     fmt.Sprintf("registry.example.test/team/%s@sha256:%064x", container, n),
			"containerID": fmt.Sprintf("containerd://%064x", n*2+i), "state": running, "started": true,
		})
	}
	labels := object{
		"k8s-app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/instance": app + "-prod",
		"app.kubernetes.io/version": "1.27.3", "pod-template-hash": "7d4b9c6f5",
	}
	pod := object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": name, "namespace": namespace, "labels": labels, "annotations": object{
			"checksum/config": fmt.Sprintf("%064x", n), "prometheus.io/scrape": "true", "prometheus.io/port": "8080",
		}},
		"spec": object{
			"nodeName": fmt.Sprintf("node-%d", n), "hostNetwork": hostNetwork, "containers": containers,
			"volumes": list{object{"name": "config", "configMap": object{"name": "config"}}},
		},
	}
	path := "namespaces/" + namespace + "/pods"
	if err := w.send(http.MethodPost, path, pod); err != nil {
		return err
	}
	var conditions list
	for _, kind := range []string{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		conditions = append(conditions, object{
			"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z",
		})
	}
	status := object{"status": object{
		"phase": "Running", "podIP": "10.0.0.1", "podIPs": list{object{"ip": "10.0.0.1"}}, "hostIP": hostAddress(n),
		"startTime": "2026-01-01T00:00:00Z", "conditions": conditions, "containerStatuses": statuses,
	}}
	return w.send(http.MethodPatch, path+"/"+name+"/status", status)
}

func (w *writer) service(namespace, name, app string) error {
	return w.send(http.MethodPost, "namespaces/"+namespace+"/services", object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": object{"name": name, "labels": object{"k8s-app": app}},
		"spec":     object{"selector": object{"k8s-app": app}, "ports": list{object{"port": 53, "protocol": "UDP"}}},
	})
}

func (w *writer) send(method, path string, body object) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(
		context.Background(), method, w.url+"/api/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+w.token)
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := w.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return err
}
