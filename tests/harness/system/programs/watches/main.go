// Command watches is a fleet of agents as the API server sees it: each with a connection of its own,
// on which it lists and then watches what an agent does. With -patch, it then changes an object, and
// reports what the agents received.
package main

import (
	"bufio"
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
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// connecting at a time; a fleet's rollout is slower.
const connecting = 50

// quiet is how long no event arrives after the last one.
const quiet = 500 * time.Millisecond

// usual is what an agent watches by default; NODE is replaced by its node's name.
var usual = []string{
	"pods?fieldSelector=spec.nodeName%3DNODE",
	"namespaces/kube-system/pods?fieldSelector=spec.hostNetwork%3Dfalse" +
		"&labelSelector=k8s-app%20in%20(kube-dns,node-local-dns)",
	"nodes?fieldSelector=metadata.name%3DNODE",
	"services?",
}

type agent struct {
	client        http.Client
	url, token    string
	metadata      bool
	received      *received
	versions      *sync.Map
	node          string
	listed, items int
}

// received is what all agents received while watching.
type received struct{ events, bytes atomic.Int64 }

// report is written to the standard output, one line of JSON.
type report struct {
	Objects     int     `json:"objects"`
	ListedBytes int     `json:"listed_bytes"`
	Patched     int     `json:"patched"`
	Seconds     float64 `json:"seconds"`
	Events      int64   `json:"events"`
	EventBytes  int64   `json:"event_bytes"`
}

type options struct {
	url, caFile, tokenFile, patch string
	agents, events                int
	metadata, listOnce            bool
	watches                       []string
	settle                        time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.url, "url", "", "of the API server")
	flag.StringVar(&o.caFile, "ca", "", "file of its authority")
	flag.StringVar(&o.tokenFile, "token", "", "file of a token")
	flag.IntVar(&o.agents, "agents", 1, "agents")
	flag.BoolVar(&o.metadata, "metadata", false, "request the metadata of objects only")
	flag.BoolVar(&o.listOnce, "list-once", false, "list with the first agent only")
	flag.Func("watch", "collection in place of the usual ones; may be repeated", func(path string) error {
		o.watches = append(o.watches, path)
		return nil
	})
	flag.StringVar(&o.patch, "patch", "", "object to change")
	flag.IntVar(&o.events, "events", 0, "changes of it")
	flag.DurationVar(&o.settle, "settle", 0, "wait before the first change")
	flag.Parse()
	log.SetFlags(0)
	if o.watches == nil {
		o.watches = usual
	}
	if err := run(&o); err != nil {
		log.Fatal(err)
	}
}

func run(o *options) error {
	var all received
	first, err := watchAll(o, &all)
	if err != nil {
		return err
	}
	// The reader measures from this line on, and ends this process.
	log.Printf("agents watch")
	if o.patch == "" {
		select {}
	}
	// Until the server has cleaned up after so many requests.
	time.Sleep(o.settle)
	log.Printf("changes begin")
	began := time.Now()
	for number := range o.events {
		if err := first.change(o.patch, number); err != nil {
			return err
		}
	}
	for before := int64(-1); before != all.events.Load(); {
		before = all.events.Load()
		time.Sleep(quiet)
	}
	result := report{first.items, first.listed, o.events, time.Since(began).Seconds(),
		all.events.Load(), all.bytes.Load()}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return err
	}
	select {}
}

// watchAll starts all agents and returns the first one.
func watchAll(o *options, all *received) (*agent, error) {
	ca, err := os.ReadFile(o.caFile)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	turns := make(chan struct{}, connecting)
	failures := make(chan error, o.agents)
	agents := make([]*agent, max(o.agents, 1))
	var versions *sync.Map
	if o.listOnce {
		versions = new(sync.Map)
	}
	var running sync.WaitGroup
	for number := range agents {
		transport := http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		}
		a := &agent{
			client: http.Client{Transport: &transport}, url: o.url, token: string(token),
			metadata: o.metadata, received: all, versions: versions, node: fmt.Sprintf("node-%d", number),
		}
		agents[number] = a
		if o.agents == 0 {
			break
		}
		if number == 0 && o.listOnce {
			if err := a.watch(o.watches); err != nil {
				return nil, err
			}
			continue
		}
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			if err := a.watch(o.watches); err != nil {
				failures <- fmt.Errorf("agent %d: %w", number, err)
			}
		})
	}
	running.Wait()
	select {
	case err := <-failures:
		return nil, err
	default:
		return agents[0], nil
	}
}

// watch opens the watches of an agent.
func (a *agent) watch(collections []string) error {
	for _, collection := range collections {
		list := strings.ReplaceAll(collection, "NODE", a.node)
		version, err := a.versionOf(collection, list)
		if err != nil {
			return err
		}
		path := fmt.Sprintf("%s&watch=1&allowWatchBookmarks=true&resourceVersion=%s", list, version)
		response, err := a.get(path)
		if err != nil {
			return err
		}
		go a.receive(response.Body)
	}
	return nil
}

// receive counts events, which are lines, and their bytes.
func (a *agent) receive(body io.Reader) {
	lines := bufio.NewReaderSize(body, 1<<16)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 && !bytes.HasPrefix(line, []byte(`{"type":"BOOKMARK"`)) {
			a.received.bytes.Add(int64(len(line)))
			if err == nil {
				a.received.events.Add(1)
			}
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

// change makes an event of an object, as a kubelet does that reports a status.
func (a *agent) change(path string, number int) error {
	body := fmt.Sprintf(`{"metadata":{"annotations":{"tap53.test/change":"%d"}}}`, number)
	request, err := http.NewRequestWithContext(
		context.Background(), http.MethodPatch, a.url+"/api/v1/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// versionOf lists a collection, unless another agent has listed it for this one too.
func (a *agent) versionOf(collection, list string) (string, error) {
	if a.versions == nil {
		return a.list(list)
	}
	if version, listed := a.versions.Load(collection); listed {
		return version.(string), nil
	}
	version, err := a.list(list)
	a.versions.Store(collection, version)
	return version, err
}

func (a *agent) list(path string) (version string, err error) {
	response, err := a.get(path + "&resourceVersion=0")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []struct{} `json:"items"`
	}
	err = json.Unmarshal(body, &list)
	a.listed += len(body)
	a.items += len(list.Items)
	return list.Metadata.ResourceVersion, err
}

func (a *agent) get(path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(
		context.Background(), http.MethodGet, a.url+"/api/v1/"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	if a.metadata {
		kind := "PartialObjectMetadataList"
		if strings.Contains(path, "watch=1") {
			kind = "PartialObjectMetadata"
		}
		request.Header.Set("Accept", "application/json;as="+kind+";g=meta.k8s.io;v=v1")
	}
	response, err := a.client.Do(request)
	if err == nil && response.StatusCode != http.StatusOK {
		response.Body.Close()
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return response, err
}
